//! Measures what an authentication costs: a key and a token seen before, a key looked
//! up anew, a wrong key, and a login.
//!
//! `cargo run --release -p weir-auth --example auth_bench`

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use prometheus::Registry;
use secrecy::{ExposeSecret, SecretString};
use weir_auth::{Auth, Config, Registration, Scope};
use weir_store::embedded::Store;

const ROUNDS: u32 = 1_000_000;

async fn show<F: Future>(what: &str, rounds: u32, mut work: impl FnMut(u32) -> F) {
    let start = Instant::now();
    for n in 0..rounds {
        work(n).await;
    }
    let each = start.elapsed() / rounds;
    println!(
        "{what:<44} {each:>9.2?} each, {:.0}/s on one thread",
        1.0 / each.as_secs_f64()
    );
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let secrets = folder.path().join("secrets");
    let open = |config| Auth::open(config, &secrets, store.clone(), &Registry::new()).unwrap();
    let auth = open(Config::default());
    // Looks everything up each time.
    let fresh = open(Config {
        recheck_seconds: 0,
        ..Config::default()
    });

    let (_, key) = auth
        .create_key("default", "bench", [Scope::Ingest].into(), None)
        .await
        .unwrap();
    let key = key.expose_secret();
    let password = SecretString::from("Correct-Horse-7");
    let registration = Registration {
        username: "ada".into(),
        email: "ada@example.org".into(),
        password: password.clone(),
    };
    auth.register(registration).await.unwrap();
    let token = auth.token("ada", &password).await.unwrap();
    let token = token.access_token.expose_secret();
    let wrong = |n: u32| format!("weir_{n:016x}_{}", "0".repeat(64));

    let works = async |auth: &Auth, credential: &str| {
        auth.authenticate(credential)
            .await
            .unwrap()
            .admit(1)
            .unwrap();
    };
    show("a key seen before, with its rate limit", ROUNDS, |_| {
        works(&auth, key)
    })
    .await;
    show("a token seen before, with its rate limit", ROUNDS, |_| {
        works(&auth, token)
    })
    .await;
    show("a key, looked up", ROUNDS / 10, |_| works(&fresh, key)).await;
    show(
        "a token, verified and its user looked up",
        ROUNDS / 50,
        |_| works(&fresh, token),
    )
    .await;
    show("a wrong key, each another", ROUNDS / 10, async |n| {
        assert!(auth.authenticate(&wrong(n)).await.is_err())
    })
    .await;
    show("a login: one argon2id", 20, async |_| {
        assert!(auth.token("ada", &password).await.is_ok())
    })
    .await;
}
