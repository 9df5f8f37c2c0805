//! API keys: shown once, apart by tenant, gone when they are taken back; and what an
//! authentication costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::StatusCode;
use jiff::Timestamp;
use prometheus::Registry;
use secrecy::ExposeSecret;
use serde_json::json;
use weir_auth::{Auth, Caller, Config, Denied, Error, Kind, Scope};
use weir_store::{Accounts, CreateError, Key, UpdateError, User};

use crate::app::App;

#[tokio::test]
async fn a_key_is_shown_once_and_only_its_hash_is_kept() {
    let app = App::new();
    let (key, secret) = app
        .auth
        .create_key("acme", "bot", [Scope::Ingest, Scope::Sql].into(), None)
        .await
        .unwrap();
    let secret = secret.expose_secret();
    assert!(secret.starts_with(&format!("weir_{}_", key.id)));
    assert_eq!(
        secret.len(),
        "weir_".len() + 16 + 1 + 64,
        "256 bits of secret"
    );

    let me = app.me(secret).await;
    assert_eq!(me.status, StatusCode::OK);
    let expected = json!({"kind": "key", "id": key.id, "name": "bot", "tenant": "acme", "scopes": ["ingest", "sql"]});
    assert_eq!(me.body, expected);

    let kept = serde_json::to_string(&app.store.keys(None).await.unwrap()).unwrap();
    assert!(!kept.contains(secret.rsplit('_').next().unwrap()));
}

#[tokio::test]
async fn only_the_whole_right_key_works() {
    let app = App::new();
    let (_, one) = app.key("acme", [Scope::Ingest]).await;
    let (_, two) = app.key("globex", [Scope::Ingest]).await;
    let split = |key: &str| -> Vec<String> { key.split('_').map(Into::into).collect() };
    let crossed = format!("weir_{}_{}", split(&one)[1], split(&two)[2]);
    let last = if one.ends_with('0') { '1' } else { '0' };
    let off_by_one = format!("{}{last}", &one[..one.len() - 1]);
    for wrong in [
        &crossed,
        &off_by_one,
        &one.to_uppercase(),
        &one[..one.len() - 1],
        &format!("{one}0"),
        &format!("x{one}"),
    ] {
        assert_eq!(
            app.me(wrong).await.status,
            StatusCode::UNAUTHORIZED,
            "{wrong}"
        );
    }
    assert_eq!(app.me(&one).await.body["tenant"], "acme");
    assert_eq!(app.me(&two).await.body["tenant"], "globex");
}

#[tokio::test]
async fn a_revoked_key_is_out_at_once_here_and_soon_elsewhere() {
    let app = App::with(|config| config.recheck_seconds = 1);
    let (id, secret) = app.key("acme", [Scope::Ingest]).await;
    let config = Config {
        recheck_seconds: 1,
        ..Config::default()
    };
    let elsewhere =
        Auth::open(config, &app.secrets(), app.store.clone(), &Registry::new()).unwrap();
    assert_eq!(app.me(&secret).await.status, StatusCode::OK);
    elsewhere.authenticate(&secret).await.unwrap();

    let revoked = app.auth.revoke_key(&id).await.unwrap();
    assert!(revoked.revoked_at.is_some());
    assert_eq!(app.me(&secret).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        app.auth.revoke_key(&id).await.unwrap(),
        revoked,
        "a second time changes nothing"
    );
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(
        elsewhere.authenticate(&secret).await.unwrap_err(),
        Denied::Invalid
    );
    assert!(matches!(
        app.auth.revoke_key("nope").await,
        Err(Error::NotFound("key"))
    ));
}

#[tokio::test]
async fn a_key_ends_at_its_time_also_when_it_is_known_already() {
    let app = App::new();
    let soon = Timestamp::now() + Duration::from_millis(2_500);
    let (_, secret) = app
        .auth
        .create_key("acme", "bot", [Scope::Ingest].into(), Some(soon))
        .await
        .unwrap();
    assert_eq!(app.me(secret.expose_secret()).await.status, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(2_600)).await;
    assert_eq!(
        app.me(secret.expose_secret()).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_key_that_makes_no_sense_is_not_made() {
    let app = App::new();
    let past = Timestamp::now() - Duration::from_secs(1);
    let long = "x".repeat(101);
    for (tenant, label, scopes, expires) in [
        ("", "bot", vec![Scope::Ingest], None),
        ("acme", "", vec![Scope::Ingest], None),
        ("acme", &long, vec![Scope::Ingest], None),
        ("acme", "line\nbreak", vec![Scope::Ingest], None),
        ("acme", "bot", vec![], None),
        ("acme", "bot", vec![Scope::Ingest], Some(past)),
    ] {
        let answer = app
            .auth
            .create_key(tenant, label, scopes.into_iter().collect(), expires)
            .await;
        assert!(matches!(answer, Err(Error::Invalid(_))), "{label:?}");
    }
    assert!(app.auth.keys(None).await.unwrap().is_empty());
}

#[test]
fn a_missing_scope_is_named() {
    let caller = Caller::unlimited(Kind::Key, "acme", "k", [Scope::Ingest, Scope::Read]);
    assert!(caller.has(Scope::Read) && caller.require(Scope::Read).is_ok());
    let problem = caller.require(Scope::Admin).unwrap_err();
    assert_eq!(problem.status(), StatusCode::FORBIDDEN);
    assert!(problem.detail().contains("`admin`"));
}

/// The real store, with its reads counted, and unreachable on demand.
struct Counted {
    inner: Arc<dyn Accounts>,
    reads: AtomicUsize,
    down: std::sync::atomic::AtomicBool,
}

impl Counted {
    fn read(&self) -> Result<(), weir_store::Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.down.load(Ordering::Relaxed) {
            return Err(weir_store::Error::Unavailable("down".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl Accounts for Counted {
    async fn create_user(&self, user: &User) -> Result<(), CreateError> {
        self.inner.create_user(user).await
    }
    async fn user(&self, username: &str) -> Result<Option<User>, weir_store::Error> {
        self.read()?;
        self.inner.user(username).await
    }
    async fn users(&self) -> Result<Vec<User>, weir_store::Error> {
        self.inner.users().await
    }
    async fn update_user(&self, user: &User) -> Result<(), UpdateError> {
        self.inner.update_user(user).await
    }
    async fn put_key(&self, key: &Key) -> Result<(), weir_store::Error> {
        self.inner.put_key(key).await
    }
    async fn key(&self, id: &str) -> Result<Option<Key>, weir_store::Error> {
        self.read()?;
        self.inner.key(id).await
    }
    async fn keys(&self, tenant: Option<&str>) -> Result<Vec<Key>, weir_store::Error> {
        self.inner.keys(tenant).await
    }
}

fn counted(app: &App) -> (Arc<Counted>, Auth) {
    let accounts = Arc::new(Counted {
        inner: app.store.clone(),
        reads: AtomicUsize::new(0),
        down: false.into(),
    });
    let config = Config {
        recheck_seconds: 60,
        ..Config::default()
    };
    let auth = Auth::open(config, &app.secrets(), accounts.clone(), &Registry::new()).unwrap();
    (accounts, auth)
}

#[tokio::test]
async fn credentials_seen_before_do_not_reach_the_store() {
    let app = App::new();
    let (accounts, auth) = counted(&app);
    let token = app.user("ada").await;
    let (_, key) = app.key("acme", [Scope::Ingest]).await;
    let unknown = format!("weir_{}_{}", "0".repeat(16), "0".repeat(64));
    let mut reads = 0;
    for (credential, works, cost) in [
        (&*token, true, 1),
        (&key, true, 1),
        (&unknown, false, 1),
        ("junk", false, 0),
    ] {
        for _ in 0..1_000 {
            assert_eq!(auth.authenticate(credential).await.is_ok(), works);
        }
        reads += cost;
        assert_eq!(accounts.reads.load(Ordering::Relaxed), reads);
    }
}

#[tokio::test]
async fn an_unreachable_store_is_not_taken_for_a_wrong_credential() {
    let app = App::new();
    let (accounts, auth) = counted(&app);
    let (_, known) = app.key("acme", [Scope::Ingest]).await;
    let (_, new) = app.key("acme", [Scope::Ingest]).await;
    auth.authenticate(&known).await.unwrap();
    accounts.down.store(true, Ordering::Relaxed);
    assert!(
        auth.authenticate(&known).await.is_ok(),
        "what is known goes on"
    );
    assert_eq!(
        auth.authenticate(&new).await.unwrap_err(),
        Denied::Unavailable
    );
    let problem = weir_auth::door::Problem::from(Denied::Unavailable);
    assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
    accounts.down.store(false, Ordering::Relaxed);
    assert!(
        auth.authenticate(&new).await.is_ok(),
        "the failure was not remembered"
    );
}
