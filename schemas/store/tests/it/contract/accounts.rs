//! Users and keys: unique whatever the case and however many come at once, durable,
//! and apart by tenant.

use std::sync::Arc;

use jiff::Timestamp;
use weir_store::{Accounts, CreateError, Key, Scope, UpdateError, User};

use crate::backend::{Backend, contract};

contract!(
    a_user_is_found_by_name_whatever_its_case,
    names_and_addresses_are_taken_whatever_their_case,
    one_of_many_that_ask_at_once_gets_the_name,
    one_of_many_that_ask_at_once_gets_the_address,
    a_refused_user_leaves_nothing_behind,
    a_changed_address_frees_the_old_one,
    an_update_of_nobody_is_refused,
    users_and_keys_are_there_after_opening_again,
    keys_are_listed_by_tenant,
    a_revoked_key_says_so,
    names_that_could_not_be_stored_are_not_there,
    nothing_secret_is_shown_by_debug,
);

fn user(name: &str, email: &str) -> User {
    User {
        username: name.into(),
        email: email.into(),
        password_hash: "$argon2id$not-a-real-hash".into(),
        tenant: "acme".into(),
        scopes: [Scope::Ingest, Scope::Read].into(),
        created_at: Timestamp::from_second(1_772_323_200).unwrap(),
        disabled: false,
    }
}

fn key(id: &str, tenant: &str) -> Key {
    Key {
        id: id.into(),
        hash: [7; 32],
        tenant: tenant.into(),
        label: "bot".into(),
        scopes: [Scope::Ingest].into(),
        created_at: Timestamp::from_second(1_772_323_200).unwrap(),
        expires_at: None,
        revoked_at: None,
    }
}

async fn a_user_is_found_by_name_whatever_its_case(backend: &impl Backend) {
    let accounts = backend.open().await.accounts;
    let ada = user("Ada", "ada@example.org");
    accounts.create_user(&ada).await.unwrap();
    for name in ["Ada", "ada", "ADA"] {
        assert_eq!(accounts.user(name).await.unwrap().as_ref(), Some(&ada));
    }
    assert_eq!(accounts.user("ad").await.unwrap(), None);
    assert_eq!(accounts.user("").await.unwrap(), None);
}

async fn names_and_addresses_are_taken_whatever_their_case(backend: &impl Backend) {
    let accounts = backend.open().await.accounts;
    accounts
        .create_user(&user("ada", "ada@example.org"))
        .await
        .unwrap();
    let answer = accounts
        .create_user(&user("ADA", "other@example.org"))
        .await;
    assert!(matches!(answer, Err(CreateError::NameTaken)));
    let answer = accounts.create_user(&user("eve", "Ada@Example.ORG")).await;
    assert!(matches!(answer, Err(CreateError::EmailTaken)));
    assert_eq!(accounts.users().await.unwrap().len(), 1);
}

async fn race(
    accounts: Arc<dyn Accounts>,
    users: impl Iterator<Item = User>,
) -> Vec<Result<(), CreateError>> {
    let calls: Vec<_> = users
        .map(|user| {
            let accounts = Arc::clone(&accounts);
            tokio::spawn(async move { accounts.create_user(&user).await })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers
}

fn mixed_case(text: &str, n: usize) -> String {
    let upper = |(i, c): (usize, char)| {
        if n >> i & 1 == 1 {
            c.to_ascii_uppercase()
        } else {
            c
        }
    };
    text.chars().enumerate().map(upper).collect()
}

async fn one_of_many_that_ask_at_once_gets_the_name(backend: &impl Backend) {
    let accounts = backend.open().await.accounts;
    let users = (0..32).map(|n| user(&mixed_case("grace", n), &format!("g{n}@example.org")));
    let answers = race(Arc::clone(&accounts), users).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Ok(()) | Err(CreateError::NameTaken)))
    );
    assert_eq!(accounts.users().await.unwrap().len(), 1);
}

async fn one_of_many_that_ask_at_once_gets_the_address(backend: &impl Backend) {
    let accounts = backend.open().await.accounts;
    let users = (0..32).map(|n| {
        user(
            &format!("user{n}"),
            &format!("{}@example.org", mixed_case("hopper", n)),
        )
    });
    let answers = race(Arc::clone(&accounts), users).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Ok(()) | Err(CreateError::EmailTaken)))
    );
    assert_eq!(accounts.users().await.unwrap().len(), 1);
}

async fn a_refused_user_leaves_nothing_behind(backend: &impl Backend) {
    let accounts = backend.open().await.accounts;
    accounts
        .create_user(&user("ada", "ada@example.org"))
        .await
        .unwrap();
    accounts
        .create_user(&user("ada", "free@example.org"))
        .await
        .unwrap_err();
    accounts
        .create_user(&user("eve", "ada@example.org"))
        .await
        .unwrap_err();
    accounts
        .create_user(&user("eve", "free@example.org"))
        .await
        .unwrap();
}

async fn a_changed_address_frees_the_old_one(backend: &impl Backend) {
    let accounts = backend.open().await.accounts;
    let ada = user("ada", "ada@example.org");
    accounts.create_user(&ada).await.unwrap();
    accounts
        .create_user(&user("eve", "eve@example.org"))
        .await
        .unwrap();

    let stolen = User {
        email: "EVE@example.org".into(),
        ..ada.clone()
    };
    assert!(matches!(
        accounts.update_user(&stolen).await,
        Err(UpdateError::EmailTaken)
    ));
    let moved = User {
        username: "ADA".into(),
        email: "lovelace@example.org".into(),
        disabled: true,
        ..ada.clone()
    };
    accounts.update_user(&moved).await.unwrap();
    let stored = accounts.user("ada").await.unwrap().unwrap();
    assert_eq!(
        stored,
        User {
            username: "ada".into(),
            ..moved
        },
        "all but the name is changed"
    );
    accounts
        .create_user(&user("new", "ada@example.org"))
        .await
        .unwrap();
    let answer = accounts
        .create_user(&user("newer", "lovelace@example.org"))
        .await;
    assert!(matches!(answer, Err(CreateError::EmailTaken)));
}

async fn an_update_of_nobody_is_refused(backend: &impl Backend) {
    let accounts = backend.open().await.accounts;
    let answer = accounts.update_user(&user("ada", "ada@example.org")).await;
    assert!(matches!(answer, Err(UpdateError::NotFound)));
    assert!(accounts.users().await.unwrap().is_empty());
}

async fn users_and_keys_are_there_after_opening_again(backend: &impl Backend) {
    let (ada, bot) = (user("ada", "ada@example.org"), key("k1", "acme"));
    {
        let accounts = backend.open().await.accounts;
        accounts.create_user(&ada).await.unwrap();
        accounts.put_key(&bot).await.unwrap();
    }
    let accounts = backend.open().await.accounts;
    assert_eq!(accounts.users().await.unwrap(), [ada]);
    assert_eq!(accounts.key("k1").await.unwrap(), Some(bot));
    assert_eq!(accounts.key("k2").await.unwrap(), None);
}

async fn keys_are_listed_by_tenant(backend: &impl Backend) {
    let accounts = backend.open().await.accounts;
    for (id, tenant) in [
        ("k1", "a"),
        ("k2", "ab"),
        ("k3", "a"),
        ("k4", "a\0"),
        ("k5", "b"),
    ] {
        accounts.put_key(&key(id, tenant)).await.unwrap();
    }
    let ids = |keys: Vec<Key>| keys.into_iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(ids(accounts.keys(Some("a")).await.unwrap()), ["k1", "k3"]);
    assert_eq!(ids(accounts.keys(Some("a\0")).await.unwrap()), ["k4"]);
    assert_eq!(
        ids(accounts.keys(Some("")).await.unwrap()),
        Vec::<String>::new()
    );
    assert_eq!(
        ids(accounts.keys(None).await.unwrap()),
        ["k1", "k2", "k3", "k4", "k5"]
    );
    accounts.put_key(&key("k1", "b")).await.unwrap();
    assert_eq!(ids(accounts.keys(Some("a")).await.unwrap()), ["k3"]);
    assert_eq!(ids(accounts.keys(Some("b")).await.unwrap()), ["k1", "k5"]);
}

async fn a_revoked_key_says_so(backend: &impl Backend) {
    let accounts = backend.open().await.accounts;
    let mut key = key("k1", "acme");
    accounts.put_key(&key).await.unwrap();
    key.revoked_at = Some(Timestamp::from_second(1_772_323_300).unwrap());
    accounts.put_key(&key).await.unwrap();
    assert_eq!(accounts.key("k1").await.unwrap(), Some(key.clone()));
    assert_eq!(accounts.keys(Some("acme")).await.unwrap(), [key]);
}

async fn names_that_could_not_be_stored_are_not_there(backend: &impl Backend) {
    let accounts = backend.open().await.accounts;
    let ada = user("ada", "ada@example.org");
    accounts.create_user(&ada).await.unwrap();
    accounts.put_key(&key("k1", "acme")).await.unwrap();
    // One far beyond the longest key of an engine, and those around it.
    for length in (65_500..65_540).chain([200_000]) {
        let long = "x".repeat(length);
        assert_eq!(accounts.user(&long).await.unwrap(), None, "{length}");
        assert_eq!(accounts.key(&long).await.unwrap(), None, "{length}");
        let keys = accounts.keys(Some(&long)).await.unwrap();
        assert!(keys.is_empty(), "{length}");
        let answer = accounts.update_user(&user(&long, "x@example.org")).await;
        assert!(matches!(answer, Err(UpdateError::NotFound)), "{length}");
    }
    assert_eq!(accounts.users().await.unwrap(), [ada]);
}

async fn nothing_secret_is_shown_by_debug(_: &impl Backend) {
    let shown = format!(
        "{:?} {:?}",
        user("ada", "ada@example.org"),
        key("k1", "acme")
    );
    assert!(
        !shown.contains("argon2id") && !shown.contains("ada@") && !shown.contains("7, 7"),
        "{shown}"
    );
}
