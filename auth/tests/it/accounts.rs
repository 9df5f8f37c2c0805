//! Register, log in, who am I: for people who do it right, and for those who do not.

use axum::http::{StatusCode, header};
use serde_json::json;
use weir_auth::Scope;
use weir_store::Accounts;

use crate::app::{App, PASSWORD};

#[tokio::test]
async fn a_stranger_registers_logs_in_and_is_told_who_it_is() {
    let app = App::new();
    let answer = app.register("Ada").await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(
        answer.body["username"], "ada",
        "names are kept in small letters"
    );
    assert_eq!(answer.body["email"], "Ada@example.org");
    assert_eq!(answer.body["tenant"], "default");
    assert_eq!(answer.body["scopes"], json!(["ingest"]));
    assert!(!answer.body.to_string().contains("argon2"));

    let answer = app.token("ADA", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body["token_type"], "bearer");
    assert_eq!(answer.body["expires_in"], 900);
    assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");

    let me = app.me(answer.body["access_token"].as_str().unwrap()).await;
    assert_eq!(me.status, StatusCode::OK);
    let expected = json!({"kind": "user", "id": "ada", "name": "ada", "username": "ada",
        "email": "Ada@example.org", "tenant": "default", "scopes": ["ingest"]});
    assert_eq!(me.body, expected);
}

#[tokio::test]
async fn the_hash_that_is_kept_is_argon2id_as_owasp_recommends() {
    let app = App::new();
    app.register("ada").await;
    let user = app.store.user("ada").await.unwrap().unwrap();
    assert!(
        user.password_hash
            .starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{}",
        user.password_hash
    );
}

#[tokio::test]
async fn names_and_addresses_are_taken_whatever_their_case() {
    let app = App::new();
    app.register("ada").await;
    let answer = app.register("ADA").await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::CONFLICT, "conflict")
    );
    assert_eq!(answer.body["field"], "username");
    let body = json!({"username": "eve", "email": "ADA@EXAMPLE.ORG", "password": PASSWORD});
    let answer = app.register_raw(body.to_string()).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!(answer.body["field"], "email");
}

#[tokio::test]
async fn everything_that_is_wrong_is_listed_at_once() {
    let app = App::new();
    let body = json!({"username": "a!", "email": "nowhere", "password": "nowhere"});
    let answer = app.register_raw(body.to_string()).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::BAD_REQUEST, "invalid_field")
    );
    let errors = answer.body["errors"].as_array().unwrap();
    let of = |field: &str| {
        errors
            .iter()
            .filter(|error| error["field"] == field)
            .count()
    };
    assert_eq!((of("username"), of("email")), (1, 1));
    assert_eq!(
        of("password"),
        3,
        "length, mixture, part of the address: {errors:?}"
    );
    assert!(
        errors
            .iter()
            .all(|error| !error["detail"].as_str().unwrap().is_empty())
    );
    assert!(app.store.users().await.unwrap().is_empty());
    assert_eq!(
        app.counted("weir_auth_password_hashes_total", "create"),
        0,
        "no hash for what is refused anyway"
    );
}

#[tokio::test]
async fn names_that_look_like_others_are_refused() {
    let app = App::new();
    app.register("admin.one").await;
    for trick in [
        "аdmin.one",         // Cyrillic a
        "admin\u{2024}one",  // one dot leader
        "admin.one\u{200b}", // zero-width space
        "\u{202e}admin.one", // right-to-left override
        "ａdmin.one",        // full width
        "ADM\u{130}N.one",   // a capital I with a dot
        "admin.one ",
        "admin.one\u{0}",
    ] {
        let answer = app.register(trick).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{trick:?}");
        assert_eq!(answer.body["errors"][0]["field"], "username", "{trick:?}");
        assert_eq!(
            app.token(trick, PASSWORD).await.status,
            StatusCode::UNAUTHORIZED,
            "{trick:?}"
        );
    }
}

#[tokio::test]
async fn a_password_is_the_same_in_every_normal_form() {
    let app = App::new();
    let composed = "Grüße-aus-Köln-7";
    let decomposed = "Gru\u{308}ße-aus-Ko\u{308}ln-7";
    let body = json!({"username": "ada", "email": "a@example.org", "password": composed});
    assert_eq!(
        app.register_raw(body.to_string()).await.status,
        StatusCode::CREATED
    );
    assert_eq!(app.token("ada", decomposed).await.status, StatusCode::OK);
}

#[tokio::test]
async fn closed_registration_lets_nobody_in_but_administrators_go_on() {
    let app = App::with(|config| config.registration = false);
    let answer = app.register("ada").await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::FORBIDDEN, "forbidden")
    );
    let registration = weir_auth::Registration {
        username: "ada".into(),
        email: "ada@example.org".into(),
        password: PASSWORD.into(),
    };
    let user = app
        .auth
        .create_user(registration, "acme", [Scope::Sql].into())
        .await
        .unwrap();
    assert_eq!(user.tenant, "acme");
    let token = app.token("ada", PASSWORD).await;
    let me = app.me(token.body["access_token"].as_str().unwrap()).await;
    assert_eq!(
        (&me.body["tenant"], &me.body["scopes"]),
        (&json!("acme"), &json!(["sql"]))
    );
}

#[tokio::test]
async fn the_registration_tenant_is_the_one_that_is_set() {
    let app = App::with(|config| config.registration_tenant = "guests".into());
    assert_eq!(app.register("ada").await.body["tenant"], "guests");
}

#[tokio::test]
async fn an_unknown_name_and_a_wrong_password_cost_and_answer_the_same() {
    let app = App::new();
    app.register("ada").await;
    app.register("off").await;
    app.auth.set_disabled("off", true).await.unwrap();

    let wrong = app.token("ada", "Wrong-Horse-77").await;
    assert_eq!(
        (wrong.status, wrong.code()),
        (StatusCode::UNAUTHORIZED, "unauthorized")
    );
    assert_eq!(wrong.body["error"], "invalid_grant");
    assert_eq!(
        wrong.header(header::WWW_AUTHENTICATE),
        r#"Bearer realm="weir""#
    );
    assert_eq!(app.verifications(), 1);
    let long = "x".repeat(5_000);
    for (n, (name, password)) in [
        ("nobody", PASSWORD),
        ("nobody", ""),
        ("off", PASSWORD),
        ("off", "Wrong-Horse-77"),
        ("", ""),
        ("not a name!", PASSWORD),
        (&long, &long),
        ("ada", &long),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(
            app.token(name, password).await,
            wrong,
            "{n}: another answer"
        );
        assert_eq!(app.verifications(), 2 + n as u64, "{n}: another cost");
    }
    assert_eq!(app.counted("weir_auth_logins_total", "refused"), 9);
}

#[tokio::test]
async fn the_documentation_describes_the_routes_and_the_credential() {
    let app = App::new();
    let (_, api) = weir_auth::door::router(app.auth).split_for_parts();
    let api = serde_json::to_value(api).unwrap();
    let statuses: &[&str] = &["413", "415", "429"];
    for (path, method, statuses) in [
        ("/v1/register", "post", statuses),
        ("/v1/token", "post", statuses),
        ("/v1/me", "get", &statuses[2..]),
    ] {
        let responses = &api["paths"][path][method]["responses"];
        for status in statuses {
            assert!(
                responses[status]["content"]["application/problem+json"].is_object(),
                "{path}: {status}"
            );
        }
    }
    assert_eq!(
        api["components"]["securitySchemes"]["bearer"]["scheme"],
        "bearer"
    );
    let problem = &api["components"]["schemas"]["Problem"];
    assert!(problem["properties"]["code"].is_object(), "{problem}");
    let form = &api["paths"]["/v1/token"]["post"]["requestBody"]["content"];
    assert!(form["application/x-www-form-urlencoded"].is_object());
    // Every reference leads somewhere.
    let text = api.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(
            api["components"]["schemas"][name].is_object(),
            "{name} is not described"
        );
    }
}
