//! Who may see what: tenants, members, and what every role shows its operator.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{Weir, eventually, text_of};

fn new_key(weir: &Weir, tenant: &str, scopes: &str) -> String {
    let output = weir.tool(&[
        "key", "create", "--tenant", tenant, "--scopes", scopes, "--label", "test",
    ]);
    assert!(output.status.success(), "{}", text_of(&output));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn tenants_never_see_each_other() {
    let weir = Weir::start();
    let (ours, theirs) = (
        new_key(&weir, "ours", "ingest,read,sql"),
        new_key(&weir, "theirs", "ingest,read,sql"),
    );
    for (key, text) in [(&ours, "from our side"), (&theirs, "from their side")] {
        let message = json!({"channel": "lobby", "sender": "sam", "id": "same-id", "text": text});
        assert_eq!(
            weir.call("POST", "/v1/messages", key, Some(&message)).0,
            202
        );
        let (_, judged) = weir.call("GET", "/v1/messages/same-id?wait=30", key, None);
        assert_eq!(judged["text"], text);
    }
    for (key, text) in [(&ours, "from our side"), (&theirs, "from their side")] {
        let rows = weir.sql(
            key,
            "SELECT text FROM messages WHERE tenant IN ('ours', 'theirs') OR true",
        );
        assert_eq!(rows, [json!([text])]);
        eventually("the history has the message", || {
            let (_, page) = weir.call("GET", "/v1/channels/lobby/messages", key, None);
            page["messages"]
                .as_array()
                .is_some_and(|rows| rows.len() == 1 && rows[0]["text"] == text)
        });
    }
}

#[test]
fn a_member_sends_as_itself_and_sees_its_own() {
    let weir = Weir::start();
    let account =
        json!({"username": "ann.lee", "email": "ann@example.org", "password": "a Quiet lake 7"});
    assert_eq!(weir.call("POST", "/v1/register", "", Some(&account)).0, 201);
    let (_, token) = weir.form(
        "/v1/token",
        &[("username", "ann.lee"), ("password", "a+Quiet+lake+7")],
    );
    let token = token["access_token"].as_str().unwrap().to_owned();
    let message = json!({"channel": "lobby", "id": "mine", "text": "hello all"});
    assert_eq!(
        weir.call("POST", "/v1/messages", &token, Some(&message)).0,
        202
    );
    let (status, judged) = weir.call("GET", "/v1/messages/mine?wait=30", &token, None);
    assert_eq!((status, &judged["sender"]), (200, &json!("ann.lee")));
    let query = json!({"query": "SELECT 1"});
    assert_eq!(weir.call("POST", "/v1/sql", &token, Some(&query)).0, 403);
}

#[test]
fn a_revoked_key_stops_working() {
    let weir = Weir::start();
    let key = new_key(&weir, "default", "ingest");
    let id = key.split('_').nth(1).unwrap();
    assert_eq!(weir.call("GET", "/v1/me", &key, None).0, 200);
    let output = weir.tool(&["key", "revoke", id]);
    assert!(output.status.success(), "{}", text_of(&output));
    eventually("the key is refused", || {
        weir.call("GET", "/v1/me", &key, None).0 == 401
    });
}

#[test]
fn a_key_without_the_admin_scope_can_not_administer() {
    let weir = Weir::start();
    let key = new_key(&weir, "default", "ingest,read,sql");
    let wanted = json!({"tenant": "default", "label": "more", "scopes": ["admin"]});
    assert_eq!(
        weir.call("POST", "/v1/admin/keys", &key, Some(&wanted)).0,
        403
    );
}

#[test]
fn the_administrator_of_another_tenant_stays_in_it() {
    let weir = Weir::start();
    let key = new_key(&weir, "theirs", "admin");
    let wanted = json!({"tenant": "default", "label": "more", "scopes": ["read"]});
    assert_eq!(
        weir.call("POST", "/v1/admin/keys", &key, Some(&wanted)).0,
        403
    );
    let (_, listed) = weir.call("GET", "/v1/admin/keys", &key, None);
    let tenants = listed["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|k| &k["tenant"]);
    assert!(
        tenants.clone().count() > 0 && tenants.clone().all(|tenant| tenant == "theirs"),
        "{listed}"
    );
}

#[test]
fn operators_find_health_metrics_and_documents() {
    let weir = Weir::start();
    assert_eq!(weir.get("/health/live").0, 200);
    eventually("it is ready", || weir.get("/health/ready").0 == 200);
    let (status, document) = weir.get("/openapi.json");
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(status, 200);
    for path in [
        "/v1/register",
        "/v1/token",
        "/v1/me",
        "/v1/messages",
        "/v1/messages/batch",
        "/v1/messages/{id}",
        "/v1/channels/{channel}/messages",
        "/v1/senders/{sender}/messages",
        "/v1/score",
        "/v1/sql",
    ] {
        assert!(document["paths"][path].is_object(), "no {path}");
    }
    assert_eq!(weir.get("/docs/").0, 200);
    let (_, metrics) = weir.get("/metrics");
    for name in [
        "weir_build_info",
        "weir_accept_to_verdict_seconds",
        "weir_accept_to_queryable_seconds",
        "weir_model_seconds",
    ] {
        assert!(metrics.contains(name), "no {name}");
    }
}

fn pages(weir: &Weir) -> BTreeSet<String> {
    let document: Value = serde_json::from_str(&weir.get("/openapi.json").1).unwrap();
    document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

#[test]
fn a_role_names_the_one_that_has_a_page_it_lacks() {
    let mut weir = Weir::start();
    let all = pages(&weir);
    let mut owners = BTreeMap::new();
    let mut answers = Vec::new();
    for role in ["ingest", "process", "query"] {
        weir.stop();
        weir.restart_as(role);
        let own = pages(&weir);
        for page in all.iter().filter(|page| !own.contains(*page)) {
            let (status, answer) = weir.get(&page.replace(['{', '}'], ""));
            answers.push((role, page, status, answer));
        }
        owners.extend(own.into_iter().map(|page| (page, role)));
    }
    assert!(!answers.is_empty());
    for (asked, page, status, answer) in answers {
        let named = format!(
            "of the role `{}`; this process runs `{asked}`",
            owners[page]
        );
        assert!(status == 404 && answer.contains(&named), "{page}: {answer}");
    }
}
