//! Nothing is lost and nothing happens twice when Weir is killed under load.
//!
//! Small here; `WEIR_KILLS=20 WEIR_KILL_MESSAGES=20000` is the full run. The moments are
//! random; `WEIR_KILL_SEED` repeats those of a run before.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::support::{PATIENCE, Weir, sample};

const BATCH: usize = 50;
/// Longest time from "it runs" to the kill.
const LIFE: Duration = Duration::from_millis(1_500);
/// One kill in so many comes while Weir is still starting.
const STARTING: usize = 4;

fn setting(name: &str, small: usize) -> usize {
    std::env::var(name).map_or(small, |value| value.parse().unwrap())
}

#[test]
fn every_accepted_message_has_one_row_and_one_verdict_though_weir_was_killed() {
    let (kills, number) = (setting("WEIR_KILLS", 4), setting("WEIR_KILL_MESSAGES", 800));
    let seed = setting("WEIR_KILL_SEED", rand::random::<u32>() as usize);
    eprintln!("WEIR_KILL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed as u64);
    let mut messages = sample(number);
    for (at, message) in messages.iter_mut().enumerate() {
        message["id"] = json!(format!("killed-{at:06}"));
    }
    let mut weir = Weir::start();
    let key = weir.admin_key();
    let accepted = AtomicUsize::new(0);
    // Sending lasts as long as the killing.
    let pause = LIFE.mul_f64((BATCH * kills) as f64 / (2 * number) as f64);
    let url = Mutex::new(weir.url().to_owned());
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let http = reqwest::blocking::Client::builder()
                .timeout(Duration::from_secs(10))
                .build()
                .unwrap();
            for batch in messages.chunks(BATCH) {
                // The same ids until they are accepted, as a producer would.
                let since = Instant::now();
                loop {
                    assert!(
                        since.elapsed() < PATIENCE,
                        "a batch is not accepted any more"
                    );
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
                accepted.fetch_add(batch.len(), Ordering::Relaxed);
                std::thread::sleep(pause);
            }
        });
        for at in 0..kills {
            // Spread over the sending, each at another moment of its life.
            let share = number * at / kills;
            while accepted.load(Ordering::Relaxed) < share {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(random.random_range(Duration::ZERO..LIFE));
            weir.kill();
            if at % STARTING == STARTING - 1 {
                weir.launch(&[]);
                std::thread::sleep(random.random_range(Duration::ZERO..LIFE / 2));
                weir.kill();
            }
            weir.restart(&[]);
            weir.url().clone_into(&mut url.lock().unwrap());
        }
    });
    assert_eq!(accepted.into_inner(), number);
    crate::path::all_stored(&weir, &key, &messages);
}
