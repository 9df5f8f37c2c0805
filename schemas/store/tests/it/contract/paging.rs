//! Lists: every row once, newest first, through any page size, while others arrive;
//! and nobody else's rows.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use weir_records::Judged;
use weir_store::{Cursor, Error, History, MAX_PAGE, PageRequest};

use crate::backend::{Backend, contract};
use crate::rows::{HOUR, MIDNIGHT, With, row};

contract!(
    pages_of_any_size_hold_every_row_once_newest_first,
    rows_of_one_instant_are_listed_by_offset_and_never_split_wrongly,
    pages_stay_apart_while_newer_rows_arrive,
    the_last_page_says_that_it_is_the_last,
    limits_outside_of_the_range_are_brought_into_it,
    a_cursor_of_another_list_is_refused,
    a_changed_cursor_is_refused,
    a_cursor_goes_on_after_opening_again,
    lists_of_similar_names_never_mix,
);

async fn walk(
    history: &dyn History,
    tenant: &str,
    channel: &str,
    limit: usize,
) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut cursor = None;
    loop {
        let page = history
            .channel(tenant, channel, &PageRequest { limit, cursor })
            .await
            .unwrap();
        assert!(page.rows.len() <= limit);
        pages.push(page.rows.into_iter().map(|row| row.message.id).collect());
        // Through the text that a client would hand back.
        cursor = match page.next {
            Some(next) => Some(next.to_string().parse().unwrap()),
            None => return pages,
        };
    }
}

/// Over four days, with gaps, several rows at each moment.
fn spread() -> Vec<Judged> {
    (0..60)
        .map(|n| {
            let day = [0, 0, 1, 5][(n % 4) as usize] * 24;
            row(&format!("m{n:02}"), n).at(MIDNIGHT + (day + n / 12) * HOUR)
        })
        .collect()
}

fn newest_first(mut rows: Vec<Judged>) -> Vec<String> {
    rows.sort_by_key(|row| {
        std::cmp::Reverse((
            row.message.received_at,
            row.source.offset,
            row.source.partition,
        ))
    });
    rows.into_iter().map(|row| row.message.id).collect()
}

async fn pages_of_any_size_hold_every_row_once_newest_first(backend: &impl Backend) {
    let history = backend.open().await.history;
    history.write(0, &spread()).await.unwrap();
    let expected = newest_first(spread());
    for limit in [1, 2, 7, 59, 60, 61, 1_000] {
        let pages = walk(&*history, "acme", "lobby", limit).await;
        assert!(
            pages[..pages.len() - 1]
                .iter()
                .all(|page| page.len() == limit),
            "a page before the last is full"
        );
        assert_eq!(pages.concat(), expected, "limit {limit}");
    }
}

async fn rows_of_one_instant_are_listed_by_offset_and_never_split_wrongly(backend: &impl Backend) {
    let history = backend.open().await.history;
    let at = |partition| -> Vec<Judged> {
        (0..10)
            .map(|n| {
                row(&format!("{partition}-{n}"), n)
                    .at(MIDNIGHT)
                    .on_partition(partition)
            })
            .collect()
    };
    history.write(0, &at(0)).await.unwrap();
    history.write(1, &at(1)).await.unwrap();
    let expected: Vec<String> = (0..10)
        .rev()
        .flat_map(|n| [format!("1-{n}"), format!("0-{n}")])
        .collect();
    for limit in [1, 3, 20] {
        assert_eq!(
            walk(&*history, "acme", "lobby", limit).await.concat(),
            expected,
            "limit {limit}"
        );
    }
}

async fn pages_stay_apart_while_newer_rows_arrive(backend: &impl Backend) {
    let history = backend.open().await.history;
    history.write(0, &spread()).await.unwrap();
    let expected = newest_first(spread());
    let mut seen = Vec::new();
    let mut cursor = None;
    let mut offset = 100;
    loop {
        let page = history
            .channel("acme", "lobby", &PageRequest { limit: 9, cursor })
            .await
            .unwrap();
        seen.extend(page.rows.into_iter().map(|row| row.message.id));
        // At the newest moment there is, and on a new day.
        let newer = [offset, offset + 1]
            .map(|n| row(&format!("new{n}"), n).at(MIDNIGHT + (n + 300) * HOUR));
        history.write(0, &newer).await.unwrap();
        offset += 2;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, expected);
}

async fn the_last_page_says_that_it_is_the_last(backend: &impl Backend) {
    let history = backend.open().await.history;
    let page = history
        .channel(
            "acme",
            "lobby",
            &PageRequest {
                limit: 5,
                cursor: None,
            },
        )
        .await
        .unwrap();
    assert!(page.rows.is_empty() && page.next.is_none(), "an empty list");
    let rows: Vec<Judged> = (0..10).map(|n| row(&format!("m{n}"), n)).collect();
    history.write(0, &rows).await.unwrap();
    assert_eq!(
        walk(&*history, "acme", "lobby", 5).await.len(),
        2,
        "no empty page after a full last one"
    );
}

async fn limits_outside_of_the_range_are_brought_into_it(backend: &impl Backend) {
    let history = backend.open().await.history;
    let rows: Vec<Judged> = (0..1_005).map(|n| row(&format!("m{n}"), n)).collect();
    history.write(0, &rows).await.unwrap();
    for (limit, expected) in [(0, 1), (usize::MAX, MAX_PAGE)] {
        let page = history
            .channel(
                "acme",
                "lobby",
                &PageRequest {
                    limit,
                    cursor: None,
                },
            )
            .await
            .unwrap();
        assert_eq!(page.rows.len(), expected);
        assert!(page.next.is_some());
    }
}

async fn first_cursor(history: &dyn History) -> Cursor {
    history.write(0, &spread()).await.unwrap();
    let page = history
        .channel(
            "acme",
            "lobby",
            &PageRequest {
                limit: 3,
                cursor: None,
            },
        )
        .await
        .unwrap();
    page.next.unwrap()
}

async fn a_cursor_of_another_list_is_refused(backend: &impl Backend) {
    let history = backend.open().await.history;
    let request = PageRequest {
        limit: 3,
        cursor: Some(first_cursor(&*history).await),
    };
    assert!(history.channel("acme", "lobby", &request).await.is_ok());
    for answer in [
        history.channel("acme", "other", &request).await,
        history.channel("globex", "lobby", &request).await,
        history.sender("acme", "lobby", &request).await,
        history.channel("acmel", "obby", &request).await,
    ] {
        assert!(matches!(answer, Err(Error::Cursor)));
    }
}

async fn a_changed_cursor_is_refused(backend: &impl Backend) {
    let history = backend.open().await.history;
    let text = first_cursor(&*history).await.to_string();
    let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert!(
                URL_SAFE_NO_PAD.encode(changed).parse::<Cursor>().is_err(),
                "byte {at}, bit {bit}"
            );
        }
    }
    for other in ["", "AA", "not a cursor", &text[1..], &format!("{text}AA")] {
        assert!(other.parse::<Cursor>().is_err(), "{other:?}");
    }
}

async fn a_cursor_goes_on_after_opening_again(backend: &impl Backend) {
    let cursor = first_cursor(&*backend.open().await.history).await;
    let history = backend.open().await.history;
    let request = PageRequest {
        limit: 1_000,
        cursor: Some(cursor),
    };
    let rest = history
        .channel("acme", "lobby", &request)
        .await
        .unwrap()
        .rows;
    let rest: Vec<String> = rest.into_iter().map(|row| row.message.id).collect();
    assert_eq!(rest, newest_first(spread())[3..]);
}

/// Names out of few characters, among them those that encodings stumble over.
fn name() -> impl Strategy<Value = String> {
    let chars = prop_oneof![
        Just('\0'),
        Just('\u{1}'),
        Just('a'),
        Just('/'),
        Just('ÿ'),
        Just('\u{10FFFF}')
    ];
    proptest::collection::vec(chars, 1..4).prop_map(|chars| chars.into_iter().collect())
}

async fn lists_of_similar_names_never_mix(backend: &impl Backend) {
    let history = backend.open().await.history;
    let mut runner = TestRunner::new(Config::default());
    let names = proptest::collection::vec(
        (name(), name(), proptest::option::of(name()), 0..4_i64),
        400,
    );
    let names = names.new_tree(&mut runner).unwrap().current();

    let mut channels: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut senders: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut rows = Vec::new();
    for (n, (tenant, channel, sender, day)) in (0..).zip(names) {
        let id = format!("m{n}");
        let row = row(&id, n)
            .in_tenant(&tenant)
            .in_channel(&channel)
            .by(sender.as_deref());
        rows.push(row.at(MIDNIGHT + day * 24 * HOUR));
        channels
            .entry((tenant.clone(), channel))
            .or_default()
            .push(id.clone());
        if let Some(sender) = sender {
            senders.entry((tenant, sender)).or_default().push(id);
        }
    }
    history.write(0, &rows).await.unwrap();

    for ((tenant, channel), mut expected) in channels {
        let mut found = walk(&*history, &tenant, &channel, 2).await.concat();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "channel {channel:?} of {tenant:?}");
    }
    for ((tenant, sender), mut expected) in senders {
        let all = PageRequest {
            limit: 1_000,
            cursor: None,
        };
        let page = history.sender(&tenant, &sender, &all).await.unwrap();
        let mut found: Vec<String> = page.rows.into_iter().map(|row| row.message.id).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "sender {sender:?} of {tenant:?}");
    }
}
