//! Nothing is lost and nothing happens twice when Weir is killed under load.
//!
//! Small here; `WEIR_KILLS=20 WEIR_KILL_MESSAGES=20000` is the full run.

use std::time::Duration;

use serde_json::json;

use crate::support::{Weir, sample};

const BATCH: usize = 50;
/// Between two kills: from "just started" to "well under way".
const LIVES: [u64; 5] = [150, 900, 400, 1_500, 50];

fn setting(name: &str, small: usize) -> usize {
    std::env::var(name).map_or(small, |value| value.parse().unwrap())
}

#[test]
fn every_accepted_message_has_one_row_and_one_verdict_though_weir_was_killed() {
    let (kills, number) = (setting("WEIR_KILLS", 4), setting("WEIR_KILL_MESSAGES", 800));
    let mut messages = sample(number);
    for (at, message) in messages.iter_mut().enumerate() {
        message["id"] = json!(format!("killed-{at:06}"));
    }
    let mut weir = Weir::start();
    let key = weir.admin_key();
    let accepted = std::sync::atomic::AtomicUsize::new(0);
    let url = std::sync::Mutex::new(weir.url().to_owned());
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let http = reqwest::blocking::Client::builder()
                .timeout(Duration::from_secs(10))
                .build()
                .unwrap();
            for batch in messages.chunks(BATCH) {
                // The same ids until they are accepted, as a producer would.
                loop {
                    let url = url.lock().unwrap().clone();
                    let sent = http
                        .post(format!("{url}/v1/messages/batch"))
                        .bearer_auth(&key)
                        .json(batch)
                        .send();
                    if sent.is_ok_and(|answer| answer.status() == 202) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                accepted.fetch_add(batch.len(), std::sync::atomic::Ordering::Relaxed);
            }
        });
        for at in 0..kills {
            // Spread over the sending, each at another moment of its life.
            let share = number * at / kills;
            while accepted.load(std::sync::atomic::Ordering::Relaxed) < share {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(LIVES[at % LIVES.len()]));
            weir.kill();
            weir.restart(&[]);
            weir.url().clone_into(&mut url.lock().unwrap());
        }
    });
    assert_eq!(accepted.into_inner(), number);
    crate::path::all_stored(&weir, &key, &messages);
}
