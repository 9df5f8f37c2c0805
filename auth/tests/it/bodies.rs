//! Requests that cannot be read are refused by what is wrong with them, naming the
//! field and echoing nothing else.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::json;

use crate::app::{Answer, App, PASSWORD, form, token_request};

const SECRET: &str = "do-not-echo-me";

async fn refused(app: &App, body: &str) -> Answer {
    let answer = app.register_raw(body.to_owned()).await;
    assert!(!answer.body.to_string().contains(SECRET), "{}", answer.body);
    assert_eq!(answer.body["status"], answer.status.as_u16());
    assert_eq!(
        answer.body["type"],
        format!("urn:weir:problem:{}", answer.code())
    );
    answer
}

#[tokio::test]
async fn faults_of_the_body_are_told_apart_and_name_the_field() {
    let app = App::new();
    let cases = [
        (
            json!({"username": "ada", "email": "a@b.co", "password": SECRET, "role": "admin"}),
            "unknown_field",
            "role",
        ),
        (
            json!({"username": "ada", "email": "a@b.co"}),
            "invalid_field",
            "password",
        ),
        (
            json!({"username": "ada", "email": 7, "password": SECRET}),
            "invalid_field",
            "email",
        ),
        (
            json!({"username": "ada", "email": "a@b.co", "password": [SECRET]}),
            "invalid_field",
            "password",
        ),
        (
            json!({"username": {"x": SECRET}, "email": "a@b.co", "password": SECRET}),
            "invalid_field",
            "username",
        ),
    ];
    for (body, code, field) in cases {
        let answer = refused(&app, &body.to_string()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, code),
            "{body}"
        );
        assert_eq!(answer.body["field"], field, "{body}");
    }
    let twice = format!(r#"{{"username": "ada", "username": "{SECRET}"}}"#);
    assert_eq!(refused(&app, &twice).await.body["field"], "username");
}

#[tokio::test]
async fn what_is_not_json_is_told_where() {
    let app = App::new();
    let broken = format!("{{\"username\": \"ada\",\n \"password\": {SECRET}}}");
    let answer = refused(&app, &broken).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::BAD_REQUEST, "invalid_json")
    );
    assert_eq!(answer.body["position"]["line"], 2);
    for body in [
        "",
        "{",
        r#"{"username": "a", "email": "b", "password": "c"} {}"#,
        "{1,2",
    ] {
        assert_eq!(refused(&app, body).await.code(), "invalid_json", "{body}");
    }
    assert_eq!(
        refused(&app, &format!("\"{SECRET}\"")).await.code(),
        "invalid_field"
    );

    let answer = app.register_raw(&b"{\"username\": \"\xff\xfe\"}"[..]).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::BAD_REQUEST, "not_utf8")
    );
}

#[tokio::test]
async fn what_is_too_large_or_of_another_kind_is_refused() {
    let app = App::new();
    let large = json!({"username": "ada", "email": "a@b.co", "password": "x".repeat(20_000)});
    let answer = app.register_raw(large.to_string()).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::PAYLOAD_TOO_LARGE, "too_large")
    );
    let answer = app.token("ada", &"x".repeat(20_000)).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::PAYLOAD_TOO_LARGE, "too_large")
    );

    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let request = Request::post("/v1/register").header(header::CONTENT_TYPE, kind);
        let answer = app
            .send("192.0.2.1:1", request.body(Body::from("{}")).unwrap())
            .await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    let request = Request::post("/v1/token").header(header::CONTENT_TYPE, "application/json");
    let answer = app
        .send("192.0.2.1:1", request.body(Body::from("{}")).unwrap())
        .await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(answer.body["error"], "invalid_request");
}

#[tokio::test]
async fn the_token_form_answers_as_oauth2_does() {
    let app = App::new();
    app.register("ada").await;
    let send =
        async |fields: &[(&str, &str)]| app.send("192.0.2.1:1", token_request(&form(fields))).await;

    let full = [
        ("grant_type", "password"),
        ("username", "ada"),
        ("password", PASSWORD),
        ("scope", ""),
    ];
    assert_eq!(
        send(&full).await.status,
        StatusCode::OK,
        "what OAuth2 clients send"
    );
    let answer = send(&[
        ("grant_type", "client_credentials"),
        ("username", "ada"),
        ("password", PASSWORD),
    ])
    .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        (&answer.body["error"], &answer.body["field"]),
        (&json!("unsupported_grant_type"), &json!("grant_type"))
    );
    for (fields, missing) in [
        (&full[..2], "password"),
        (&full[2..3], "username"),
        (&[], "username"),
    ] {
        let answer = send(fields).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(
            (&answer.body["error"], &answer.body["field"]),
            (&json!("invalid_request"), &json!(missing))
        );
    }
}

#[tokio::test]
async fn a_request_without_a_credential_is_told_how_to_send_one() {
    let app = App::new();
    for value in ["", "Bearer", "Bearer ", "Basic YWRhOmFkYQ==", "bearer\tx"] {
        let request = Request::get("/v1/me").header(header::AUTHORIZATION, value);
        let answer = app
            .send("192.0.2.1:1", request.body(Body::empty()).unwrap())
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{value:?}");
        assert_eq!(
            answer.header(header::WWW_AUTHENTICATE),
            r#"Bearer realm="weir""#,
            "{value:?}"
        );
        assert!(
            answer.body["detail"]
                .as_str()
                .unwrap()
                .contains("Authorization: Bearer")
        );
    }
    let answer = app.me("nonsense").await;
    assert_eq!(
        answer.header(header::WWW_AUTHENTICATE),
        r#"Bearer realm="weir", error="invalid_token""#
    );
    let (_, secret) = app.key("acme", [weir_auth::Scope::Read]).await;
    let request =
        Request::get("/v1/me").header(header::AUTHORIZATION, format!("bEaReR   {secret}"));
    let answer = app
        .send("192.0.2.1:1", request.body(Body::empty()).unwrap())
        .await;
    assert_eq!(
        answer.status,
        StatusCode::OK,
        "the scheme's case does not matter"
    );
}
