//! Writes: fences, atomicity, replays, the first verdict stays, tenants apart.

use std::sync::Arc;

use weir_records::{Judged, Source};
use weir_store::{Error, History, PageRequest};

use crate::backend::{Backend, contract};
use crate::rows::{With, row};

contract!(
    a_row_is_found_by_id_by_channel_and_by_sender,
    what_was_acknowledged_is_there_after_opening_again,
    rows_not_above_the_fence_are_dropped,
    fences_of_partitions_are_apart,
    a_batch_with_a_wrong_row_leaves_nothing_behind,
    a_row_that_can_never_be_stored_is_refused_for_good,
    the_first_verdict_of_a_message_stays,
    the_same_id_in_two_tenants_is_two_messages,
    a_message_without_a_sender_is_in_no_senders_list,
    writers_of_one_partition_at_once_store_each_row_once,
    a_writer_that_comes_late_does_not_move_the_fence_back,
    names_that_could_not_be_stored_are_not_there,
    writers_of_many_partitions_at_once_lose_nothing,
    a_row_put_by_hand_is_there_whatever_the_fence_says,
    a_row_put_many_times_at_once_is_written_once,
);

const ALL: PageRequest = PageRequest {
    limit: 1_000,
    cursor: None,
};

async fn ids(history: &dyn History, tenant: &str, channel: &str) -> Vec<String> {
    let page = history.channel(tenant, channel, &ALL).await.unwrap();
    assert!(page.next.is_none());
    page.rows.into_iter().map(|row| row.message.id).collect()
}

async fn a_row_is_found_by_id_by_channel_and_by_sender(backend: &impl Backend) {
    let history = backend.open().await.history;
    let row = row("m1", 7);
    assert_eq!(
        history.write(0, std::slice::from_ref(&row)).await.unwrap(),
        1
    );

    assert_eq!(
        history.message("acme", "m1").await.unwrap().as_ref(),
        Some(&row)
    );
    assert_eq!(
        history.source("acme", "m1").await.unwrap(),
        Some(row.source)
    );
    assert_eq!(
        history.channel("acme", "lobby", &ALL).await.unwrap().rows,
        std::slice::from_ref(&row)
    );
    assert_eq!(
        history.sender("acme", "ada", &ALL).await.unwrap().rows,
        [row]
    );

    assert_eq!(history.message("acme", "m2").await.unwrap(), None);
    assert_eq!(history.source("acme", "m2").await.unwrap(), None);
    assert_eq!(history.message("acm", "em1").await.unwrap(), None);
    assert!(
        history
            .channel("acme", "ada", &ALL)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(
        history
            .sender("acme", "lobby", &ALL)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
}

async fn what_was_acknowledged_is_there_after_opening_again(backend: &impl Backend) {
    let row = row("m1", 7);
    backend
        .open()
        .await
        .history
        .write(0, std::slice::from_ref(&row))
        .await
        .unwrap();
    let history = backend.open().await.history;
    assert_eq!(history.fence(0).await.unwrap(), Some(7));
    assert_eq!(
        history.message("acme", "m1").await.unwrap(),
        Some(row.clone())
    );
    assert_eq!(
        history.channel("acme", "lobby", &ALL).await.unwrap().rows,
        std::slice::from_ref(&row)
    );
    assert_eq!(history.write(0, &[row]).await.unwrap(), 0, "the fence held");
}

async fn rows_not_above_the_fence_are_dropped(backend: &impl Backend) {
    let history = backend.open().await.history;
    assert_eq!(history.fence(0).await.unwrap(), None);
    let batch = [row("a", 0), row("b", 1), row("c", 5)];
    assert_eq!(history.write(0, &batch).await.unwrap(), 3);
    assert_eq!(history.fence(0).await.unwrap(), Some(5));

    assert_eq!(history.write(0, &batch).await.unwrap(), 0, "a replay");
    let overlapping = [row("late", 3), row("c", 5), row("d", 6)];
    assert_eq!(history.write(0, &overlapping).await.unwrap(), 1);
    assert_eq!(history.write(0, &[]).await.unwrap(), 0);

    assert_eq!(history.fence(0).await.unwrap(), Some(6));
    assert_eq!(ids(&*history, "acme", "lobby").await, ["d", "c", "b", "a"]);
    assert_eq!(history.message("acme", "late").await.unwrap(), None);
}

async fn fences_of_partitions_are_apart(backend: &impl Backend) {
    let history = backend.open().await.history;
    history
        .write(3, &[row("a", 9).on_partition(3)])
        .await
        .unwrap();
    history
        .write(-1, &[row("b", 2).on_partition(-1)])
        .await
        .unwrap();
    let fences = [
        history.fence(3).await.unwrap(),
        history.fence(-1).await.unwrap(),
    ];
    assert_eq!(fences, [Some(9), Some(2)]);
    assert_eq!(history.fence(0).await.unwrap(), None);
    assert_eq!(history.write(0, &[row("c", 1)]).await.unwrap(), 1);
}

async fn a_batch_with_a_wrong_row_leaves_nothing_behind(backend: &impl Backend) {
    let history = backend.open().await.history;
    let wrong: [&[Judged]; 4] = [
        &[row("a", 1), row("b", 2).on_partition(1)],
        &[row("a", 1), row("b", 1)],
        &[row("a", 2), row("b", 1)],
        &[row("a", 1), row(&"x".repeat(100_000), 2)],
    ];
    for batch in wrong {
        let error = history.write(0, batch).await.unwrap_err();
        assert!(
            matches!(error, Error::Refused(_)) && !error.retriable(),
            "{error}"
        );
        assert_eq!(history.fence(0).await.unwrap(), None);
        assert_eq!(history.source("acme", "a").await.unwrap(), None);
    }
    assert!(ids(&*history, "acme", "lobby").await.is_empty());
    // The bucket that the refused rows would have begun is still begun by the next ones.
    history.write(0, &[row("a", 1)]).await.unwrap();
    assert_eq!(ids(&*history, "acme", "lobby").await, ["a"]);
}

async fn a_row_that_can_never_be_stored_is_refused_for_good(backend: &impl Backend) {
    let history = backend.open().await.history;
    let long = "x".repeat(100_000);
    for row in [
        row(&long, 1),
        row("m", 1).in_tenant(&long),
        row("m", 1).in_channel(&long),
        row("m", 1).by(Some(&long)),
    ] {
        let error = history.write(0, &[row]).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{error}");
        assert!(
            !error.to_string().contains('x'),
            "it quotes the row: {error}"
        );
    }
}

async fn the_first_verdict_of_a_message_stays(backend: &impl Backend) {
    let history = backend.open().await.history;
    let first = row("m", 1);
    let mut again = row("m", 2).at(0);
    again.verdict.model = "another".into();
    assert_eq!(
        history
            .write(0, &[first.clone(), again.clone()])
            .await
            .unwrap(),
        1,
        "in one batch"
    );
    again.source.offset = 3;
    assert_eq!(
        history
            .write(0, &[again.clone(), row("n", 4)])
            .await
            .unwrap(),
        1,
        "in another batch"
    );
    assert_eq!(
        history.write(1, &[again.on_partition(1)]).await.unwrap(),
        0,
        "elsewhere"
    );

    assert_eq!(
        history.message("acme", "m").await.unwrap().as_ref(),
        Some(&first)
    );
    let source = history.source("acme", "m").await.unwrap();
    assert_eq!(
        source,
        Some(Source {
            partition: 0,
            offset: 1
        })
    );
    assert_eq!(ids(&*history, "acme", "lobby").await, ["n", "m"]);
    assert_eq!(history.fence(0).await.unwrap(), Some(4));
    assert_eq!(
        history.fence(1).await.unwrap(),
        Some(3),
        "a dropped duplicate moves the fence"
    );
}

async fn the_same_id_in_two_tenants_is_two_messages(backend: &impl Backend) {
    let history = backend.open().await.history;
    let ours = row("m", 1);
    let theirs = row("m", 2).in_tenant("globex").at(1);
    assert_eq!(
        history
            .write(0, &[ours.clone(), theirs.clone()])
            .await
            .unwrap(),
        2
    );
    assert_eq!(
        history.message("acme", "m").await.unwrap(),
        Some(ours.clone())
    );
    assert_eq!(
        history.message("globex", "m").await.unwrap(),
        Some(theirs.clone())
    );
    assert_eq!(
        history.channel("acme", "lobby", &ALL).await.unwrap().rows,
        [ours]
    );
    assert_eq!(
        history.sender("globex", "ada", &ALL).await.unwrap().rows,
        [theirs]
    );
}

async fn a_message_without_a_sender_is_in_no_senders_list(backend: &impl Backend) {
    let history = backend.open().await.history;
    history.write(0, &[row("m", 1).by(None)]).await.unwrap();
    assert_eq!(ids(&*history, "acme", "lobby").await, ["m"]);
    assert!(
        history
            .sender("acme", "", &ALL)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
    assert!(
        history
            .sender("acme", "ada", &ALL)
            .await
            .unwrap()
            .rows
            .is_empty()
    );
}

async fn writers_of_one_partition_at_once_store_each_row_once<B: Backend>(backend: &B) {
    let history: Arc<dyn History> = backend.open().await.history;
    // Eight writers that overlap, as when a partition has two owners for a moment.
    let writers = (0..8).map(|writer| {
        let history = Arc::clone(&history);
        tokio::spawn(async move {
            let mut written = 0;
            for start in (0..200).step_by(10) {
                let batch: Vec<Judged> = (start..start + 10 + writer)
                    .map(|n| row(&format!("m{n}"), n))
                    .collect();
                written += history.write(0, &batch).await.unwrap();
            }
            written
        })
    });
    let mut written = 0;
    for writer in writers.collect::<Vec<_>>() {
        written += writer.await.unwrap();
    }
    let last = 190 + 10 + 7 - 1;
    assert_eq!(
        history.fence(0).await.unwrap(),
        Some(last),
        "the fence went back"
    );
    let stored = ids(&*history, "acme", "lobby").await;
    assert!(written >= stored.len());
    assert!(!B::ORDERS_WRITERS || written == stored.len());
    let expected: Vec<String> = (0..=last).rev().map(|n| format!("m{n}")).collect();
    assert_eq!(stored, expected);
}

async fn a_writer_that_comes_late_does_not_move_the_fence_back(backend: &impl Backend) {
    let history = backend.open().await.history;
    for partition in 0..20 {
        let batch = |offsets: std::ops::Range<i64>| -> Vec<Judged> {
            let of = |n| row(&format!("{partition}-{n}"), n).on_partition(partition);
            offsets.map(of).collect()
        };
        // Both look at the fence before either has written.
        let (newer, older) = (batch(100..110), batch(0..5));
        let (newer, older) = tokio::join!(
            history.write(partition, &newer),
            history.write(partition, &older)
        );
        assert_eq!(newer.unwrap(), 10);
        let older = older.unwrap();
        assert_eq!(history.fence(partition).await.unwrap(), Some(109));
        let stored = history
            .source("acme", &format!("{partition}-0"))
            .await
            .unwrap();
        assert_eq!(
            (older, stored.is_some()),
            if older == 0 { (0, false) } else { (5, true) }
        );
    }
}

async fn names_that_could_not_be_stored_are_not_there(backend: &impl Backend) {
    let history = backend.open().await.history;
    history.write(0, &[row("m0", 0)]).await.unwrap();
    // One far beyond the longest key of an engine, and those around it.
    for length in (65_490..65_540).chain([200_000]) {
        let long = "x".repeat(length);
        for (tenant, name) in [("acme", &*long), (&*long, "lobby")] {
            let message = history.message(tenant, name).await.unwrap();
            let source = history.source(tenant, name).await.unwrap();
            assert!(message.is_none() && source.is_none(), "{length}");
            for page in [
                history.channel(tenant, name, &ALL).await.unwrap(),
                history.sender(tenant, name, &ALL).await.unwrap(),
            ] {
                assert!(page.rows.is_empty() && page.next.is_none(), "{length}");
            }
        }
    }
}

async fn a_row_put_by_hand_is_there_whatever_the_fence_says(backend: &impl Backend) {
    let history = backend.open().await.history;
    history.write(0, &[row("a", 1), row("c", 9)]).await.unwrap();
    let late = row("late", 5);
    assert!(history.put(&late).await.unwrap());
    assert_eq!(
        history.fence(0).await.unwrap(),
        Some(9),
        "it moves no fence"
    );
    assert_eq!(
        history.message("acme", "late").await.unwrap(),
        Some(late.clone())
    );
    assert_eq!(ids(&*history, "acme", "lobby").await, ["c", "late", "a"]);
    let by_sender = history.sender("acme", "ada", &ALL).await.unwrap().rows;
    assert_eq!(by_sender.len(), 3);

    // Above the fence too: what the stream brings behind it is not dropped for that.
    assert!(history.put(&row("ahead", 20)).await.unwrap());
    assert_eq!(history.fence(0).await.unwrap(), Some(9));
    let stream = [row("next", 10), row("ahead", 20)];
    assert_eq!(history.write(0, &stream).await.unwrap(), 1);

    // The first verdict stays, from wherever it came.
    let mut other = row("late", 6).at(0);
    other.verdict.model = "another".into();
    assert!(!history.put(&other).await.unwrap());
    assert!(!history.put(&late).await.unwrap(), "the same row again");
    assert!(
        !history
            .put(&row("a", 40).in_channel("elsewhere"))
            .await
            .unwrap()
    );
    let made = row("late", 7).with_made_id(true);
    assert!(!history.put(&made).await.unwrap(), "whoever made its id");
    assert_eq!(history.message("acme", "late").await.unwrap(), Some(late));
    assert_eq!(
        ids(&*history, "acme", "lobby").await,
        ["ahead", "next", "c", "late", "a"]
    );
    assert!(ids(&*history, "acme", "elsewhere").await.is_empty());
    let error = history
        .put(&row(&"x".repeat(100_000), 50))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
}

async fn a_row_put_many_times_at_once_is_written_once<B: Backend>(backend: &B) {
    let history: Arc<dyn History> = backend.open().await.history;
    let writers = (0..6).map(|offset| {
        let history = Arc::clone(&history);
        tokio::spawn(async move { history.put(&row("m", offset)).await.unwrap() })
    });
    let mut written = 0;
    for writer in writers.collect::<Vec<_>>() {
        written += usize::from(writer.await.unwrap());
    }
    assert!(written >= 1);
    assert!(!B::ORDERS_WRITERS || written == 1);
    assert_eq!(ids(&*history, "acme", "lobby").await, ["m"]);
}

async fn writers_of_many_partitions_at_once_lose_nothing(backend: &impl Backend) {
    let history: Arc<dyn History> = backend.open().await.history;
    let writers = (0..4).map(|partition| {
        let history = Arc::clone(&history);
        tokio::spawn(async move {
            for n in 0..20 {
                let row = row(&format!("{partition}-{n}"), n).on_partition(partition);
                assert_eq!(history.write(partition, &[row]).await.unwrap(), 1);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    for partition in 0..4 {
        assert_eq!(history.fence(partition).await.unwrap(), Some(19));
    }
    assert_eq!(ids(&*history, "acme", "lobby").await.len(), 80);
}
