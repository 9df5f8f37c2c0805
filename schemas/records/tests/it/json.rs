//! The shape that users see. A change here breaks their programs.

use weir_records::{Judged, Scores, Verdict};

use crate::examples;

const VERDICT: &str = r#"{"action":"flag","reasons":[{"attribute":"insult","score":0.93,"threshold":0.8}],"scores":{"toxicity":0.91,"severe_toxicity":0.05,"insult":0.93,"threat":0.01,"identity_attack":0.02,"profanity":0.4},"sentiment":{"label":"negative","negative":0.9,"neutral":0.08,"positive":0.02},"language":"en","spans":[{"attribute":"toxicity","start":13,"end":18}],"model":"minilm-1","judged_at":"2026-11-23T00:00:00.000001Z"}"#;

#[test]
fn a_verdict_has_the_documented_shape() {
    assert_eq!(
        serde_json::to_string(&examples::verdict()).unwrap(),
        VERDICT
    );
    let read: Verdict = serde_json::from_str(VERDICT).unwrap();
    assert_eq!(read, examples::verdict());
}

#[test]
fn a_judged_message_is_the_message_with_its_verdict_and_place() {
    let message = r#""tenant":"acme","channel":"lobby","sender":"Zoë","by_user":false,"id":"m-1","text":"you are an 🥔 idiot","sent_at":"2026-11-22T10:00:00.123456Z","received_at":"2026-11-22T23:59:59.999999Z","metadata":{"game":"chess","round":3}"#;
    let json = format!(r#"{{{message},"verdict":{VERDICT},"partition":3,"offset":9876543210}}"#);
    assert_eq!(serde_json::to_string(&examples::judged()).unwrap(), json);
    let read: Judged = serde_json::from_str(&json).unwrap();
    assert_eq!(read, examples::judged());
}

#[test]
fn what_was_not_given_is_not_shown() {
    let json = serde_json::to_string(&examples::bare()).unwrap();
    assert!(
        !json.contains("sender") && !json.contains("metadata"),
        "{json}"
    );
    let json = serde_json::to_value(examples::judged_bare()).unwrap();
    assert_eq!(json["verdict"]["action"], "allow");
    assert_eq!(json["verdict"]["reasons"], serde_json::json!([]));
}

#[test]
fn a_score_that_is_missing_is_named() {
    let error = serde_json::from_str::<Scores>(r#"{"toxicity": 0.5}"#).unwrap_err();
    assert!(error.to_string().contains("severe_toxicity"), "{error}");
}

#[test]
fn debug_shows_no_text() {
    let shown = format!("{:?} {:?}", examples::judged(), examples::dead_letter());
    assert!(shown.contains("m-1"), "{shown}");
    for secret in ["idiot", "chess", "lobby\\0", "128"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
