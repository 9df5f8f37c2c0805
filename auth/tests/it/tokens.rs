//! Tokens that were not signed here, were changed, or are no longer worth anything.

use std::fs;

use axum::http::{StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prometheus::Registry;
use serde_json::{Value, json};
use weir_auth::{Auth, Config, Scope};
use weir_store::{Accounts, User};

use crate::app::{App, PASSWORD};

/// The signing key of the app: its id and its bytes.
fn signing_key(app: &App) -> (String, Vec<u8>) {
    let path = fs::read_dir(app.secrets())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let kid = path
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .strip_prefix("jwt-")
        .unwrap()
        .to_owned();
    let pem = fs::read_to_string(path).unwrap();
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    (kid, STANDARD.decode(body).unwrap())
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn claims() -> Value {
    json!({"iss": "weir", "aud": "weir", "sub": "ada", "iat": now(), "exp": now() + 60})
}

fn sign(kid: Option<&str>, key: &[u8], claims: &Value) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = kid.map(Into::into);
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(key)).unwrap()
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

async fn assert_refused(app: &App, token: &str, what: &str) {
    let answer = app.me(token).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}");
    assert_eq!(
        answer.header(header::WWW_AUTHENTICATE),
        r#"Bearer realm="weir", error="invalid_token""#,
        "{what}"
    );
}

#[tokio::test]
async fn a_token_names_its_key_and_says_little() {
    let app = App::new();
    let token = app.user("ada").await;
    let header = jsonwebtoken::decode_header(&token).unwrap();
    assert_eq!(
        (header.alg, header.kid),
        (Algorithm::EdDSA, Some(signing_key(&app).0))
    );
    let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(&token).unwrap();
    let names: Vec<&String> = claims.as_object().unwrap().keys().collect();
    assert_eq!(names, ["aud", "exp", "iat", "iss", "sub"]);
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        900
    );
}

#[tokio::test]
async fn a_changed_token_is_refused() {
    let app = App::new();
    let token = app.user("ada").await;
    app.register("eve").await;
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
    let parts: Vec<&str> = token.split('.').collect();
    for (n, part) in parts.iter().enumerate() {
        let bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let mut forged: Vec<String> = parts.iter().map(|&part| part.to_owned()).collect();
            forged[n] = URL_SAFE_NO_PAD.encode(changed);
            assert_refused(&app, &forged.join("."), &format!("part {n}, byte {at}")).await;
        }
    }
    let payload = URL_SAFE_NO_PAD
        .encode(json!({"iss": "weir", "aud": "weir", "sub": "eve", "exp": now() + 60}).to_string());
    assert_refused(
        &app,
        &format!("{}.{payload}.{}", parts[0], parts[2]),
        "another user's name",
    )
    .await;
    for text in [
        "..",
        "a.b.c",
        &token[1..],
        &format!("{token}."),
        &format!("{}.{}.", parts[0], parts[1]),
    ] {
        assert_refused(&app, text, text).await;
    }
}

#[tokio::test]
async fn other_algorithms_are_refused_whatever_they_are_signed_with() {
    let app = App::new();
    app.user("ada").await;
    let (kid, key) = signing_key(&app);
    for alg in ["none", "None", "NONE", ""] {
        let header = json!({"typ": "JWT", "alg": alg, "kid": kid});
        assert_refused(&app, &format!("{}.", unsigned(&header, &claims())), alg).await;
    }
    // The classic: the public key, which is no secret, as the secret of an HMAC.
    let public = &key[key.len() - 32..];
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(kid);
    for secret in [public, &key, b""] {
        let token =
            jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap();
        assert_refused(&app, &token, "HS256").await;
    }
}

#[tokio::test]
async fn a_token_of_another_key_is_refused() {
    let (app, other) = (App::new(), App::new());
    app.user("ada").await;
    let theirs = other.user("ada").await;
    assert_refused(&app, &theirs, "another installation's token").await;
    let ((kid, key), (_, foreign)) = (signing_key(&app), signing_key(&other));
    assert_refused(
        &app,
        &sign(Some(&kid), &foreign, &claims()),
        "our key id, their key",
    )
    .await;
    assert_refused(
        &app,
        &sign(Some("../../etc/passwd"), &key, &claims()),
        "a path as key id",
    )
    .await;
    assert_refused(&app, &sign(None, &key, &claims()), "no key id").await;
    assert_eq!(
        app.me(&sign(Some(&kid), &key, &claims())).await.status,
        StatusCode::OK,
        "the same, rightly made"
    );
}

#[tokio::test]
async fn claims_must_be_there_and_right() {
    let app = App::new();
    app.user("ada").await;
    let (kid, key) = signing_key(&app);
    let wrong = [
        ("exp", json!(now() - 1)),
        ("exp", json!(now())),
        ("exp", json!("tomorrow")),
        ("exp", Value::Null),
        ("iss", json!("elsewhere")),
        ("iss", Value::Null),
        ("aud", json!("elsewhere")),
        ("aud", Value::Null),
        ("sub", json!("nobody")),
        ("sub", Value::Null),
    ];
    for (name, value) in wrong {
        let mut claims = claims();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
        assert_refused(
            &app,
            &sign(Some(&kid), &key, &claims),
            &format!("{name}: {value}"),
        )
        .await;
    }
}

#[tokio::test]
async fn a_token_ends_at_its_time_also_when_it_is_known_already() {
    let app = App::with(|config| config.token_seconds = 2);
    let token = app.user("ada").await;
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    assert_refused(&app, &token, "expired").await;
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once_here() {
    let app = App::new();
    let token = app.user("ada").await;
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
    app.auth.set_disabled("ada", true).await.unwrap();
    assert_refused(&app, &token, "disabled").await;
    assert_eq!(
        app.token("ada", PASSWORD).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_user_who_may_again_is_in_at_once_here() {
    // Not by the recheck.
    let app = App::with(|config| config.recheck_seconds = 3_600);
    let token = app.user("ada").await;
    app.auth.set_disabled("ada", true).await.unwrap();
    assert_refused(&app, &token, "disabled").await;
    app.auth.set_disabled("ada", false).await.unwrap();
    assert_eq!(app.me(&token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_another_process_changes_is_seen_after_the_recheck() {
    let app = App::with(|config| config.recheck_seconds = 1);
    let token = app.user("ada").await;
    assert_eq!(app.me(&token).await.body["scopes"], json!(["ingest"]));
    let user = app.store.user("ada").await.unwrap().unwrap();
    // Past this handle, as another process would.
    let more = User {
        scopes: [Scope::Read].into(),
        ..user.clone()
    };
    app.store.update_user(&more).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    assert_eq!(app.me(&token).await.body["scopes"], json!(["read"]));
    app.store
        .update_user(&User {
            disabled: true,
            ..user
        })
        .await
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    assert_refused(&app, &token, "disabled elsewhere").await;
}

#[tokio::test]
async fn tokens_outlive_a_restart_and_a_new_key() {
    let app = App::new();
    let token = app.user("ada").await;
    let again = Auth::open(
        Config::default(),
        &app.secrets(),
        app.store.clone(),
        &Registry::new(),
    )
    .unwrap();
    assert_eq!(again.authenticate(&token).await.unwrap().name, "ada");

    // A second key is put there: the running one finds it, the next start signs with it.
    let other = App::new();
    let (kid, key) = signing_key(&other);
    let file = format!("jwt-{kid}.pem");
    fs::copy(other.secrets().join(&file), app.secrets().join(&file)).unwrap();
    let newer = sign(Some(&kid), &key, &claims());
    assert_eq!(app.me(&newer).await.status, StatusCode::OK);
    let next = Auth::open(
        Config::default(),
        &app.secrets(),
        app.store.clone(),
        &Registry::new(),
    )
    .unwrap();
    assert_eq!(
        next.authenticate(&token).await.unwrap().name,
        "ada",
        "the old key still verifies"
    );
    let signed = next.token("ada", &PASSWORD.into()).await.unwrap();
    let signed = secrecy::ExposeSecret::expose_secret(&signed.access_token).to_owned();
    assert_eq!(jsonwebtoken::decode_header(&signed).unwrap().kid, Some(kid));
}
