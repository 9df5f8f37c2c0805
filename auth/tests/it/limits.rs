//! Limits: by address for what needs no credential, by caller for the rest, and on the
//! work of hashing. Refused means at once, with the time to come back.

use axum::http::StatusCode;
use serde_json::json;
use weir_auth::Scope;
use weir_auth::door::Code;

use crate::app::{App, PASSWORD, me_request, register_request};

#[tokio::test]
async fn guessing_passwords_ends_soon_for_that_address_only() {
    let app = App::with(|config| config.address_per_minute = 10);
    app.register("ada").await;
    for n in 0..10 {
        let answer = app
            .token_from("198.51.100.7:1", "ada", "Wrong-Horse-77")
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{n}");
    }
    let verified = app.verifications();
    // Not even the right password, and from any port.
    let answer = app.token_from("198.51.100.7:2", "ada", PASSWORD).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::TOO_MANY_REQUESTS, "rate_limited")
    );
    assert!((1..=60).contains(&answer.retry_after()));
    assert_eq!(app.verifications(), verified, "no hash for what is refused");
    assert_eq!(app.counted("weir_auth_rate_limited_total", "token"), 1);
    assert_eq!(
        app.token_from("198.51.100.8:1", "ada", PASSWORD)
            .await
            .status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn registrations_of_an_address_are_limited_whatever_is_sent() {
    let app = App::with(|config| {
        config.address_per_minute = 10;
        config.address_burst = 3;
    });
    for body in ["{", "{}", "not even JSON"] {
        let answer = app.send("198.51.100.7:1", register_request(body)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    let answer = app.send("198.51.100.7:1", register_request("{")).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let right = json!({"username": "ada", "email": "a@b.co", "password": PASSWORD}).to_string();
    let answer = app.send("198.51.100.8:1", register_request(right)).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let answer = app.token_from("198.51.100.7:1", "ada", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::OK, "each door counts for itself");
}

#[tokio::test]
async fn guessing_credentials_is_limited_but_good_ones_of_the_address_go_on() {
    let app = App::with(|config| config.address_per_minute = 10);
    let (_, good) = app.key("acme", [Scope::Ingest]).await;
    let guess = |n: usize| format!("weir_{n:016x}_{}", "0".repeat(64));
    for n in 0..10 {
        assert_eq!(
            app.me_from("198.51.100.7:1", &guess(n)).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    let answer = app.me_from("198.51.100.7:1", &guess(10)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.retry_after() >= 1);
    assert_eq!(
        app.me_from("198.51.100.7:1", &good).await.status,
        StatusCode::OK
    );
    assert_eq!(
        app.me_from("198.51.100.8:1", &guess(11)).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_forwarded_address_is_believed_only_from_a_trusted_proxy() {
    for (trusted, expected) in [
        (false, StatusCode::TOO_MANY_REQUESTS),
        (true, StatusCode::UNAUTHORIZED),
    ] {
        let app = App::with(|config| {
            config.address_per_minute = 5;
            config.address_burst = 5;
            if trusted {
                config.trusted_proxies = vec!["198.51.100.7".parse().unwrap()];
            }
        });
        let mut last = StatusCode::OK;
        for n in 0..6 {
            let mut request = me_request(&format!("guess{n}"));
            let forwarded = format!("203.0.113.{n}").parse().unwrap();
            request.headers_mut().insert("x-forwarded-for", forwarded);
            last = app.send("198.51.100.7:1", request).await.status;
        }
        assert_eq!(last, expected, "trusted: {trusted}");
    }
}

#[tokio::test]
async fn a_caller_over_its_limit_waits_and_others_do_not() {
    let app = App::with(|config| {
        config.caller_per_second = 1;
        config.caller_burst = 5;
        config.recheck_seconds = 0;
    });
    let (_, one) = app.key("acme", [Scope::Ingest]).await;
    let (_, two) = app.key("acme", [Scope::Ingest]).await;
    let token = app.user("ada").await;
    for _ in 0..5 {
        assert_eq!(app.me(&one).await.status, StatusCode::OK);
    }
    let answer = app.me(&one).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::TOO_MANY_REQUESTS, "rate_limited")
    );
    assert_eq!(answer.retry_after(), 1);
    assert_eq!(app.counted("weir_auth_rate_limited_total", "caller"), 1);
    assert_eq!(app.me(&two).await.status, StatusCode::OK);
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_batch_counts_by_its_messages() {
    let app = App::with(|config| {
        config.caller_per_second = 1;
        config.caller_burst = 100;
    });
    let (_, secret) = app.key("acme", [Scope::Ingest]).await;
    let caller = app.auth.authenticate(&secret).await.unwrap();
    caller.admit(0).unwrap();
    caller.admit(60).unwrap();
    let problem = caller.admit(60).unwrap_err();
    assert_eq!(problem.code(), Code::RateLimited);
    caller.admit(30).expect("a refused batch counts nothing");
    let problem = caller.admit(101).unwrap_err();
    assert_eq!(
        problem.code(),
        Code::TooLarge,
        "waiting would not help: {}",
        problem.detail()
    );
    assert!(problem.detail().contains("100"));
}

#[tokio::test]
async fn no_limit_means_none() {
    let app = App::with(|config| config.caller_per_second = 0);
    let (_, secret) = app.key("acme", [Scope::Ingest]).await;
    let caller = app.auth.authenticate(&secret).await.unwrap();
    for _ in 0..1_000 {
        caller.admit(u32::MAX).unwrap();
    }
}

#[tokio::test]
async fn hashing_beyond_its_bound_is_refused_at_once() {
    let app = App::with(|config| {
        config.hashing_threads = 1;
        config.hashing_queue = 2;
    });
    app.register("ada").await;
    let before = app.verifications();
    // All begin before the first one's hash is done: one runs, two wait.
    let calls = (0..20).map(|_| app.token("ada", PASSWORD));
    let answers = join_all(calls).await;
    let (done, refused): (Vec<_>, Vec<_>) = answers
        .into_iter()
        .partition(|answer| answer.status == StatusCode::OK);
    assert!(done.len() >= 3, "{}", done.len());
    assert!(!refused.is_empty());
    for answer in &refused {
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::SERVICE_UNAVAILABLE, "overloaded")
        );
        assert!(answer.retry_after() >= 1);
    }
    assert_eq!(
        app.verifications() - before,
        done.len() as u64,
        "a refused login computes nothing"
    );
    assert_eq!(
        app.token("ada", PASSWORD).await.status,
        StatusCode::OK,
        "the places are free again"
    );
}

#[tokio::test]
async fn callers_that_go_away_free_their_places_but_not_before_the_work_is_done() {
    let app = App::with(|config| {
        config.hashing_threads = 1;
        config.hashing_queue = 0;
    });
    app.register("ada").await;
    {
        let gone = app.token("ada", PASSWORD);
        tokio::pin!(gone);
        // Polled once: the hash has begun.
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(gone.as_mut().poll(cx).is_pending()))
                .await
        );
    }
    let answer = app.token("ada", PASSWORD).await;
    assert_eq!(
        answer.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "its hash still runs"
    );
    for _ in 0..600 {
        if app.token("ada", PASSWORD).await.status == StatusCode::OK {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the place was never freed");
}

async fn join_all<F: Future>(calls: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut calls: Vec<_> = calls.map(|call| (Box::pin(call), None)).collect();
    std::future::poll_fn(|cx| {
        for (call, answer) in &mut calls {
            if answer.is_none()
                && let std::task::Poll::Ready(done) = call.as_mut().poll(cx)
            {
                *answer = Some(done);
            }
        }
        let all = calls.iter().all(|(_, answer)| answer.is_some());
        if all {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    calls.into_iter().filter_map(|(_, answer)| answer).collect()
}
