//! What is known of an id as its message goes its way, whatever overtakes what.

use jiff::Timestamp;
use weir_records::{Judged, Scores, Sentiment, Verdict};

use super::*;

fn message(id: &str, text: &str) -> Message {
    Message {
        tenant: "acme".to_owned(),
        channel: "c".to_owned(),
        sender: None,
        by_user: false,
        id_made: false,
        id: id.to_owned(),
        text: text.to_owned(),
        sent_at: Timestamp::now(),
        received_at: Timestamp::now(),
        metadata: None,
    }
}

fn at(offset: i64) -> Source {
    Source {
        partition: 3,
        offset,
    }
}

struct Memories {
    recent: Arc<Recent>,
    verdicts: Arc<Verdicts>,
}

impl Memories {
    fn new() -> Self {
        let gauge = || IntGauge::new("entries", "entries").unwrap();
        Self {
            recent: Arc::new(Recent::new(3_200, gauge())),
            verdicts: Arc::new(Verdicts::new(1 << 20, gauge())),
        }
    }

    fn claims(&self) -> Claims {
        Claims::new(Arc::clone(&self.recent), Arc::clone(&self.verdicts), 1)
    }

    /// A verdict comes.
    fn judge(&self, message: &Message, source: Source) {
        let judged = Judged {
            message: message.clone(),
            verdict: Verdict {
                action: weir_records::Action::Allow,
                reasons: Vec::new(),
                scores: Scores([0.0; 6]),
                sentiment: Sentiment::from_probabilities([0.0, 1.0, 0.0]),
                language: "en".to_owned(),
                spans: Vec::new(),
                model: "test".to_owned(),
                judged_at: Timestamp::now(),
            },
            source,
        };
        let identity = self.recent.identity_of(message);
        let record = judged.clone().encode().into();
        self.verdicts.keep(identity.key, &record, &judged);
        self.recent.judged(&identity, source);
    }
}

#[test]
fn an_id_takes_no_more_than_is_said() {
    // With its share of empty places, the 90 bytes of `recent_ids`.
    assert_eq!(size_of::<(Key, Known)>(), 40);
}

#[test]
fn a_verdict_is_known_whether_it_comes_before_or_after_the_message_is_known() {
    let memories = Memories::new();
    let recent = &memories.recent;
    for (n, order) in ["claimed", "settled", "made", "heard"].iter().enumerate() {
        let (message, source) = (message(order, "text"), at(n as i64));
        let identity = recent.identity_of(&message);
        let mut claims = memories.claims();
        match *order {
            "claimed" => {
                assert!(matches!(claims.claim(identity), Claim::Ours));
                memories.judge(&message, source);
                assert!(recent.is_accepted(identity.key), "the log has it");
                claims.settle([true].into_iter());
            }
            "settled" => {
                assert!(matches!(claims.claim(identity), Claim::Ours));
                claims.settle([true].into_iter());
                assert_eq!(recent.source(identity.key), None);
                memories.judge(&message, source);
            }
            "made" => {
                claims.take(identity);
                memories.judge(&message, source);
                claims.settle([true].into_iter());
            }
            _ => {
                memories.judge(&message, source);
                assert!(recent.hear(&identity, source, &memories.verdicts));
            }
        }
        assert_eq!(recent.source(identity.key), Some(source), "{order}");
        assert!(!recent.hear(&identity, source, &memories.verdicts));
        assert_eq!(recent.source(identity.key), Some(source), "{order}");
    }
}

#[test]
fn a_verdict_of_another_message_leaves_one_that_is_on_its_way() {
    let memories = Memories::new();
    let recent = &memories.recent;
    let ours = recent.identity_of(&message("m", "ours"));
    let mut claims = memories.claims();
    assert!(matches!(claims.claim(ours), Claim::Ours));
    memories.judge(&message("m", "theirs"), at(1));
    assert!(!recent.is_accepted(ours.key));
    // It does not get through: the id is free, or is theirs.
    claims.settle([false].into_iter());
    assert!(!recent.is_known(ours.key));
}

#[test]
fn an_id_that_fell_out_does_not_come_back_with_its_verdict_unless_it_was_there_at_the_start() {
    let memories = Memories::new();
    let recent = &memories.recent;
    let identity = recent.identity_of(&message("m", "text"));
    recent.judged(&identity, at(1));
    assert!(!recent.is_known(identity.key));
    recent.was_judged(&identity, at(1));
    assert!(recent.is_accepted(identity.key));
}

#[test]
fn only_the_judged_message_that_was_asked_about_is_forgotten() {
    let memories = Memories::new();
    let recent = &memories.recent;
    let identity = recent.identity_of(&message("m", "text"));
    recent.hear(&identity, at(1), &memories.verdicts);
    recent.forget(identity.key, at(1));
    assert!(recent.is_known(identity.key), "it waits to be judged");
    recent.judged(&identity, at(2));
    recent.forget(identity.key, at(1));
    assert!(recent.is_known(identity.key), "it was sent anew");
    recent.forget(identity.key, at(2));
    assert!(!recent.is_known(identity.key));
}

#[test]
fn what_takes_the_id_of_a_judged_message_waits_to_be_judged_itself() {
    let memories = Memories::new();
    let recent = &memories.recent;
    let mut old = message("m", "old");
    old.received_at -= jiff::SignedDuration::from_hours(25);
    let identity = recent.identity_of(&old);
    recent.hear(&identity, at(1), &memories.verdicts);
    memories.judge(&old, at(1));
    assert_eq!(recent.source(identity.key), Some(at(1)));

    // Accepted by another process, for which the old one's time was over.
    let new = message("m", "new");
    let identity = recent.identity_of(&new);
    assert!(recent.hear(&identity, at(5), &memories.verdicts));
    assert_eq!(recent.source(identity.key), None);
    assert!(!recent.differs(&identity));
    memories.judge(&new, at(5));
    assert_eq!(recent.source(identity.key), Some(at(5)));
    let kept = memories.verdicts.get(identity.key, "acme", "m").unwrap();
    assert_eq!(kept.message.text, "new");

    // Sent twice at the same time: the verdict of the first is theirs.
    assert!(recent.hear(&identity, at(6), &memories.verdicts));
    assert_eq!(recent.source(identity.key), Some(at(5)));
}

#[test]
fn of_two_messages_accepted_at_the_same_moment_the_judged_one_stays() {
    let memories = Memories::new();
    let Memories { recent, verdicts } = &memories;
    let (first, second) = (message("id", "one"), message("id", "another"));
    let [one, other] = [&first, &second].map(|message| recent.identity_of(message));
    let is_first = || !recent.differs(&one) && recent.differs(&other);
    recent.hear(&one, at(5), verdicts);
    memories.judge(&first, at(5));
    // Another process accepted it before it heard of the first.
    recent.hear(&other, at(6), verdicts);
    assert!(is_first());
    assert_eq!(recent.source(one.key), Some(at(5)));
    // Or in another channel, where it is judged as well.
    let elsewhere = Source {
        partition: 4,
        offset: 7,
    };
    recent.judged(&other, elsewhere);
    assert!(is_first());
}
