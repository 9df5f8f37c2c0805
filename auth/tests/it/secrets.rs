//! Secrets: where they lie, who may read them, and that they are told to nobody.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::http::StatusCode;
use prometheus::Registry;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use weir_auth::door::{Code, Problem};
use weir_auth::{Auth, Config, Error, OpenError, Registration, Scope};
use weir_store::embedded::Store;

use crate::app::{App, PASSWORD, logged};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn open(app: &App, secrets: &Path) -> Result<Auth, OpenError> {
    Auth::open(
        Config::default(),
        secrets,
        app.store.clone(),
        &Registry::new(),
    )
}

fn key_file(app: &App) -> std::path::PathBuf {
    fs::read_dir(app.secrets())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
}

#[test]
fn the_first_run_makes_a_private_key_and_the_next_uses_it() {
    let app = App::new();
    assert_eq!(mode(&app.secrets()), 0o700);
    let file = key_file(&app);
    assert_eq!(mode(&file), 0o600);
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with("jwt-") && name.ends_with(".pem"), "{name}");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    open(&app, &app.secrets()).unwrap();
    assert_eq!(fs::read_dir(app.secrets()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn what_others_may_read_is_refused_with_the_way_out() {
    let app = App::new();
    let file = key_file(&app);
    for bits in [0o644, 0o640, 0o604, 0o620] {
        fs::set_permissions(&file, Permissions::from_mode(bits)).unwrap();
        let error = open(&app, &app.secrets()).unwrap_err();
        assert!(matches!(error, OpenError::Permissions { .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
    open(&app, &app.secrets()).unwrap();
    fs::set_permissions(app.secrets(), Permissions::from_mode(0o755)).unwrap();
    let error = open(&app, &app.secrets()).unwrap_err();
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

#[test]
fn a_file_that_holds_no_key_is_named_and_not_replaced() {
    let app = App::new();
    let file = key_file(&app);
    for text in [
        "",
        "nonsense",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ] {
        fs::write(&file, text).unwrap();
        let error = open(&app, &app.secrets()).unwrap_err();
        assert!(
            matches!(&error, OpenError::NotAKey { path } if *path == file),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn settings_that_can_not_work_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    for (config, name) in [
        (
            Config {
                token_seconds: 0,
                ..Config::default()
            },
            "token_seconds",
        ),
        (
            Config {
                registration_tenant: String::new(),
                ..Config::default()
            },
            "registration_tenant",
        ),
        (
            Config {
                cached_credentials: 0,
                ..Config::default()
            },
            "cached_credentials",
        ),
        (
            Config {
                tracked_addresses: 0,
                ..Config::default()
            },
            "tracked_addresses",
        ),
    ] {
        let error = Auth::open(
            config,
            &folder.path().join("secrets"),
            store.clone(),
            &Registry::new(),
        )
        .unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(
        serde_json::from_str::<Config>(r#"{"token_secs": 1}"#)
            .unwrap_err()
            .to_string()
            .contains("token_secs")
    );
}

#[tokio::test]
async fn the_first_administrator_is_made_once() {
    let app = App::new();
    let (password, key) = app.first_admin().await;
    let token = app.token("admin", password.expose_secret()).await;
    let by_token = app.me(token.body["access_token"].as_str().unwrap()).await;
    let by_key = app.me(key.expose_secret()).await;
    for me in [by_token, by_key] {
        assert_eq!(me.status, StatusCode::OK);
        assert_eq!(me.body["tenant"], "default");
        assert_eq!(me.body["scopes"], json!(["ingest", "read", "sql", "admin"]));
    }
    for name in ["admin", "another"] {
        let keep = |_: &str, _: &SecretString, _: &SecretString| -> Result<(), Error> {
            panic!("there is one")
        };
        assert!(!app.auth.ensure_admin(name, keep).await.unwrap());
    }
    assert_eq!(app.auth.users().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_whoever_makes_an_administrator_a_moment_late_has_kept_works_nowhere() {
    let app = App::new();
    let first = open(&app, &app.secrets()).unwrap();
    let mut late = None;
    let made = app
        .auth
        .ensure_admin("admin", |_, _, key| {
            late = Some(key.clone());
            std::thread::scope(|scope| {
                let other = scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .unwrap();
                    let keep = |_: &str, _: &SecretString, _: &SecretString| Ok::<_, Error>(());
                    runtime.block_on(first.ensure_admin("admin", keep))
                });
                assert!(other.join().unwrap()?);
                Ok::<_, Error>(())
            })
        })
        .await;
    assert!(matches!(made, Err(Error::Taken("username"))), "{made:?}");
    let late = late.unwrap();
    let me = app.me(late.expose_secret()).await;
    assert_eq!(me.status, StatusCode::UNAUTHORIZED);
    let keys = app.auth.keys(None).await.unwrap();
    let valid = keys.iter().filter(|key| key.revoked_at.is_none());
    assert_eq!((keys.len(), valid.count()), (2, 1));
}

#[tokio::test]
async fn nothing_is_stored_of_an_administrator_before_its_credentials_are_kept() {
    let app = App::new();
    let full = app
        .auth
        .ensure_admin("admin", |_, _, _| Err(Error::Crypto))
        .await;
    assert!(matches!(full, Err(Error::Crypto)), "{full:?}");
    assert!(app.auth.users().await.unwrap().is_empty());
    assert!(
        app.auth.keys(None).await.unwrap().is_empty(),
        "a key that nobody has seen is left behind"
    );
    let (_, key) = app.first_admin().await;
    assert_eq!(app.me(key.expose_secret()).await.status, StatusCode::OK);
    assert_eq!(app.auth.keys(None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_last_administrator_stays_one() {
    let app = App::new();
    app.first_admin().await;
    let demoted = app.auth.set_scopes("admin", [Scope::Ingest].into()).await;
    assert!(matches!(demoted, Err(Error::LastAdmin)), "{demoted:?}");
    let disabled = app.auth.set_disabled("Admin", true).await;
    assert!(matches!(disabled, Err(Error::LastAdmin)), "{disabled:?}");

    assert_eq!(Problem::from(Error::LastAdmin).code(), Code::Conflict);
    let admin = app.auth.user("admin").await.unwrap().unwrap();
    assert!(admin.scopes.contains(&Scope::Admin) && !admin.disabled);

    // Neither one without the right, nor a disabled one, nor one of another tenant counts.
    for (name, tenant) in [("ada", "default"), ("off", "default"), ("eve", "acme")] {
        let registration = Registration {
            username: name.into(),
            email: format!("{name}@example.org"),
            password: PASSWORD.into(),
        };
        let scopes: BTreeSet<Scope> = if name == "ada" {
            [Scope::Ingest].into()
        } else {
            Scope::ALL.into()
        };
        app.auth
            .create_user(registration, tenant, scopes)
            .await
            .unwrap();
    }
    app.auth.set_disabled("off", true).await.unwrap();
    let disabled = app.auth.set_disabled("admin", true).await;
    assert!(matches!(disabled, Err(Error::LastAdmin)), "{disabled:?}");

    app.auth.set_scopes("ada", Scope::ALL.into()).await.unwrap();
    app.auth.set_disabled("admin", true).await.unwrap();
}

#[tokio::test]
async fn two_administrators_can_not_shut_each_other_out_at_once() {
    let app = App::new();
    app.first_admin().await;
    app.register("ada").await;
    for _ in 0..10 {
        for name in ["admin", "ada"] {
            app.auth.set_scopes(name, Scope::ALL.into()).await.unwrap();
        }
        let (one, other) = tokio::join!(
            app.auth.set_scopes("admin", [Scope::Ingest].into()),
            app.auth.set_scopes("ada", [Scope::Ingest].into()),
        );
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
}

#[tokio::test]
async fn an_account_of_the_administrators_name_does_not_become_one_or_stand_in_the_way() {
    let app = App::new();
    app.register("admin").await;
    app.register("admin-2").await;
    let mut names = Vec::new();
    for _ in 0..2 {
        let keep = |name: &str, password: &SecretString, _: &SecretString| {
            names.push((name.to_owned(), password.clone()));
            Ok::<_, Error>(())
        };
        app.auth.ensure_admin("admin", keep).await.unwrap();
    }
    let [(name, password)] = &*names else {
        panic!("not made once, but {} times", names.len());
    };
    assert_eq!(name, "admin-3");
    let token = app.token(name, password.expose_secret()).await;
    let me = app.me(token.body["access_token"].as_str().unwrap()).await;
    assert_eq!(me.body["scopes"], json!(["ingest", "read", "sql", "admin"]));
    for stranger in ["admin", "admin-2"] {
        assert_eq!(
            app.auth.user(stranger).await.unwrap().unwrap().scopes,
            [Scope::Ingest].into()
        );
    }
    assert_eq!(app.auth.keys(None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn no_secret_is_logged_or_shown() {
    let app = App::new();
    let (admin_password, admin_key) = app.first_admin().await;
    let token = app.user("ada").await;
    let (id, key) = app.key("acme", [Scope::Ingest]).await;
    app.me(&token).await;
    app.me(&key).await;
    app.token("ada", "Wrong-Horse-77").await;
    app.register("ada").await;
    app.me("weir_not_a_key").await;
    app.auth.set_disabled("ada", true).await.unwrap();
    app.auth.revoke_key(&id).await.unwrap();
    let registration = Registration {
        username: "bob".into(),
        email: "bob@example.org".into(),
        password: PASSWORD.into(),
    };
    let issued = app.auth.token("admin", &admin_password).await.unwrap();
    let caller = app
        .auth
        .authenticate(admin_key.expose_secret())
        .await
        .unwrap();
    let mut shown = format!("{:?} {registration:?} {issued:?} {caller:?}", app.auth);
    shown += &format!(
        "{:?} {:?}",
        app.auth.users().await.unwrap(),
        app.auth.keys(None).await.unwrap()
    );

    let logged = logged();
    assert!(
        logged.contains("user created") && logged.contains("key revoked"),
        "nothing was captured: {logged}"
    );
    let pem = fs::read_to_string(key_file(&app)).unwrap();
    let hash = app.auth.user("ada").await.unwrap().unwrap().password_hash;
    for secret in [
        PASSWORD,
        "Wrong-Horse-77",
        admin_password.expose_secret(),
        admin_key.expose_secret().rsplit('_').next().unwrap(),
        key.rsplit('_').next().unwrap(),
        &token,
        token.rsplit('.').next().unwrap(),
        issued.access_token.expose_secret(),
        pem.lines().nth(1).unwrap(),
        &hash,
        "ada@example.org",
    ] {
        assert!(!logged.contains(secret), "a secret is logged");
        assert!(!shown.contains(secret), "a secret is shown by Debug");
    }
}
