//! Erasing: gone from everywhere, only what was asked for, and it does not come back.

use jiff::Timestamp;
use weir_records::Judged;
use weir_store::{Erase, History, PageRequest};

use crate::backend::{Backend, contract};
use crate::rows::{HOUR, MIDNIGHT, With, row};

contract!(
    an_erased_message_is_gone_from_everywhere_and_only_it,
    a_sender_is_erased_up_to_a_moment,
    what_was_erased_does_not_come_back_from_the_topic,
    the_id_of_an_erased_message_may_be_used_again,
    an_erasure_that_comes_again_leaves_the_message_that_took_the_id,
    what_is_not_there_is_erased_without_a_word,
);

const ALL: PageRequest = PageRequest {
    limit: 1_000,
    cursor: None,
};

fn message(id: &str) -> Erase {
    Erase::Message {
        id: id.into(),
        up_to: Timestamp::MAX,
    }
}

fn sender(name: &str, up_to: Timestamp) -> Erase {
    Erase::Sender {
        name: name.into(),
        up_to,
    }
}

/// So many hours after midnight.
fn hours(hours: i64) -> Timestamp {
    Timestamp::from_microsecond(MIDNIGHT + hours * HOUR).unwrap()
}

/// Erases and answers how many messages went.
async fn erase(history: &dyn History, tenant: &str, what: Erase) -> u64 {
    history.erase(tenant, &what).await.unwrap().messages
}

async fn channel(history: &dyn History, tenant: &str, name: &str) -> Vec<Judged> {
    history.channel(tenant, name, &ALL).await.unwrap().rows
}

async fn by(history: &dyn History, tenant: &str, name: &str) -> Vec<Judged> {
    history.sender(tenant, name, &ALL).await.unwrap().rows
}

async fn an_erased_message_is_gone_from_everywhere_and_only_it(backend: &impl Backend) {
    let history = backend.open().await.history;
    let rows = [
        row("m1", 1),
        row("m2", 2),
        row("m3", 3).by(None),
        row("m2", 4).in_tenant("globex"),
    ];
    history.write(0, &rows).await.unwrap();

    assert_eq!(erase(&*history, "acme", message("m2")).await, 1);
    assert_eq!(history.message("acme", "m2").await.unwrap(), None);
    assert_eq!(history.source("acme", "m2").await.unwrap(), None);
    let left = [rows[2].clone(), rows[0].clone()];
    assert_eq!(channel(&*history, "acme", "lobby").await, left);
    assert_eq!(by(&*history, "acme", "ada").await, left[1..]);
    assert_eq!(by(&*history, "globex", "ada").await, rows[3..]);
    assert_eq!(
        history.message("globex", "m2").await.unwrap().as_ref(),
        rows.last()
    );

    assert_eq!(erase(&*history, "acme", message("m2")).await, 0, "again");
    assert_eq!(erase(&*history, "acme", message("m3")).await, 1);
    assert_eq!(channel(&*history, "acme", "lobby").await, left[1..]);
    assert_eq!(history.fence(0).await.unwrap(), Some(4));
}

async fn a_sender_is_erased_up_to_a_moment(backend: &impl Backend) {
    let history = backend.open().await.history;
    // More than two steps, over days and channels, every third by somebody else.
    let rows: Vec<Judged> = (0..1_800)
        .map(|n| {
            let by = if n % 3 == 2 { "bob" } else { "ada" };
            row(&format!("m{n}"), n)
                .at(MIDNIGHT + n * HOUR / 20)
                .in_channel(["lobby", "games"][usize::from(n % 5 == 0)])
                .by(Some(by))
        })
        .collect();
    for part in rows.chunks(300) {
        history.write(0, part).await.unwrap();
    }
    let up_to = rows[1_650].message.received_at;
    let gone = |row: &Judged| {
        row.message.sender.as_deref() == Some("ada") && row.message.received_at <= up_to
    };
    let expected = rows.iter().filter(|row| gone(row)).count() as u64;
    assert_eq!(
        erase(&*history, "acme", sender("ada", up_to)).await,
        expected
    );
    assert_eq!(
        erase(&*history, "acme", sender("ada", up_to)).await,
        0,
        "again"
    );

    let left = |of: &dyn Fn(&Judged) -> bool| -> Vec<Judged> {
        let rows = rows.iter().rev().filter(|row| !gone(row) && of(row));
        rows.take(ALL.limit).cloned().collect()
    };
    for name in ["lobby", "games"] {
        let expected = left(&|row| row.message.channel == name);
        assert_eq!(channel(&*history, "acme", name).await, expected, "{name}");
    }
    for name in ["ada", "bob"] {
        let expected = left(&|row| row.message.sender.as_deref() == Some(name));
        assert_eq!(by(&*history, "acme", name).await, expected, "{name}");
    }
    for row in rows.iter().step_by(97) {
        let found = history.message("acme", &row.message.id).await.unwrap();
        assert_eq!(found.is_none(), gone(row));
        let source = history.source("acme", &row.message.id).await.unwrap();
        assert_eq!(source.is_none(), gone(row));
    }
    // And all that is left, with a moment that nothing is later than.
    let rest = left(&|row| row.message.sender.as_deref() == Some("ada")).len() as u64;
    let end = Timestamp::MAX;
    assert_eq!(erase(&*history, "acme", sender("ada", end)).await, rest);
    assert!(by(&*history, "acme", "ada").await.is_empty());
    assert_eq!(by(&*history, "acme", "bob").await.len(), 600);
}

async fn what_was_erased_does_not_come_back_from_the_topic(backend: &impl Backend) {
    let first = row("m", 7);
    {
        let history = backend.open().await.history;
        history
            .write(0, std::slice::from_ref(&first))
            .await
            .unwrap();
        assert_eq!(erase(&*history, "acme", message("m")).await, 1);
    }
    // Another process, that reads the topic from further back.
    let history = backend.open().await.history;
    let again = [row("k", 6), first, row("n", 8)];
    assert_eq!(history.write(0, &again).await.unwrap(), 1);
    assert_eq!(history.message("acme", "m").await.unwrap(), None);
    assert_eq!(history.source("acme", "m").await.unwrap(), None);
    assert_eq!(channel(&*history, "acme", "lobby").await, again[2..]);
    assert_eq!(by(&*history, "acme", "ada").await, again[2..]);
}

async fn the_id_of_an_erased_message_may_be_used_again(backend: &impl Backend) {
    let history = backend.open().await.history;
    for n in 0..3 {
        let sent = [row("m", n)];
        assert_eq!(history.write(0, &sent).await.unwrap(), 1, "time {n}");
        assert_eq!(
            history.message("acme", "m").await.unwrap().as_ref(),
            sent.first()
        );
        assert_eq!(
            history.source("acme", "m").await.unwrap(),
            Some(sent[0].source)
        );
        assert_eq!(channel(&*history, "acme", "lobby").await, sent);
        assert_eq!(by(&*history, "acme", "ada").await, sent);
        let second = [row("m", 100 + n).on_partition(1)];
        assert_eq!(
            history.write(1, &second).await.unwrap(),
            0,
            "it is there: one message"
        );
        let what = if n == 1 {
            sender("ada", Timestamp::MAX)
        } else {
            message("m")
        };
        assert_eq!(erase(&*history, "acme", what).await, 1);
    }
    assert_eq!(history.message("acme", "m").await.unwrap(), None);
    assert!(channel(&*history, "acme", "lobby").await.is_empty());
}

async fn an_erasure_that_comes_again_leaves_the_message_that_took_the_id(backend: &impl Backend) {
    let history = backend.open().await.history;
    let (first, second) = (row("m", 1), row("m", 2));
    let up_to = first.message.received_at;
    assert!(second.message.received_at > up_to);
    let what = || Erase::Message {
        id: "m".into(),
        up_to,
    };
    history.write(0, &[first]).await.unwrap();
    assert_eq!(erase(&*history, "acme", what()).await, 1);
    history
        .write(0, std::slice::from_ref(&second))
        .await
        .unwrap();
    assert_eq!(erase(&*history, "acme", what()).await, 0);
    assert_eq!(
        history.message("acme", "m").await.unwrap().as_ref(),
        Some(&second)
    );
    assert_eq!(channel(&*history, "acme", "lobby").await, [second]);
}

async fn what_is_not_there_is_erased_without_a_word(backend: &impl Backend) {
    let history = backend.open().await.history;
    history.write(0, &[row("m", 1)]).await.unwrap();
    let long = "x".repeat(70_000);
    for what in [
        message("n"),
        message(&long),
        sender("bob", hours(1)),
        sender(&long, hours(1)),
        sender("ada", hours(-1)),
        sender("ada", Timestamp::MIN),
    ] {
        assert_eq!(erase(&*history, "acme", what).await, 0);
    }
    assert_eq!(erase(&*history, "acm", message("em")).await, 0);
    assert!(history.message("acme", "m").await.unwrap().is_some());
}
