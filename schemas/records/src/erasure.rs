//! What is to be forgotten: one request, and all requests as a filter.
//!
//! An erasure covers messages that were received up to a time, so that what the same
//! sender says later is kept, and so that reading a record again decides alike. Names
//! of senders are enough: a user who signed in and somebody of the same name that a
//! producer tells of are both covered.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::message::Message;

/// A request to forget.
#[derive(Clone, PartialEq, Eq)]
pub struct Erasure {
    /// Whose messages.
    pub tenant: String,
    /// Which of them.
    pub target: Target,
    /// Only those received at this time or before; microseconds are kept.
    pub up_to: Timestamp,
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// The user or key that asked.
    pub by: String,
}

/// Which messages of a tenant.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// All of this sender.
    Sender(String),
    /// The one with this id.
    Message(String),
}

/// Says what kind of request it is: a name that is to be forgotten must not stay in a log.
impl std::fmt::Debug for Erasure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let target = match &self.target {
            Target::Sender(_) => "sender",
            Target::Message(_) => "message",
        };
        f.debug_struct("Erasure")
            .field("tenant", &self.tenant)
            .field("target", &target)
            .field("up_to", &self.up_to)
            .field("requested_at", &self.requested_at)
            .field("by", &self.by)
            .finish()
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sender(_) => "Sender",
            Self::Message(_) => "Message",
        })
    }
}

/// Many erasures as one filter: a look-up or two for a message, whatever their number.
#[derive(Clone, Default)]
pub struct Erasures {
    tenants: HashMap<String, OfTenant>,
    count: usize,
}

/// For each name, the latest time up to which it is erased, in microseconds.
#[derive(Clone, Default)]
struct OfTenant {
    senders: HashMap<String, i64>,
    messages: HashMap<String, i64>,
}

impl std::fmt::Debug for Erasures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Erasures")
            .field("count", &self.count)
            .finish()
    }
}

impl Erasures {
    /// Adds one; the later of two about the same counts.
    pub fn insert(&mut self, erasure: &Erasure) {
        let tenant = self.tenants.entry(erasure.tenant.clone()).or_default();
        let (names, name) = match &erasure.target {
            Target::Sender(sender) => (&mut tenant.senders, sender),
            Target::Message(id) => (&mut tenant.messages, id),
        };
        let up_to = erasure.up_to.as_microsecond();
        let known = names.entry(name.clone()).or_insert_with(|| {
            self.count += 1;
            up_to
        });
        *known = up_to.max(*known);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a message of that sender and id, received at that time in microseconds
    /// since 1970-01-01 UTC, is erased.
    #[must_use]
    pub fn covers(&self, tenant: &str, sender: Option<&str>, id: &str, received: i64) -> bool {
        let Some(of) = self.tenants.get(tenant) else {
            return false;
        };
        let within = |up_to: Option<&i64>| up_to.is_some_and(|up_to| received <= *up_to);
        within(of.messages.get(id)) || within(sender.and_then(|sender| of.senders.get(sender)))
    }

    /// Whether the message is erased.
    #[must_use]
    pub fn cover(&self, message: &Message) -> bool {
        // Almost always there is none to look for.
        !self.is_empty()
            && self.covers(
                &message.tenant,
                message.sender.as_deref(),
                &message.id,
                message.received_at.as_microsecond(),
            )
    }
}

impl FromIterator<Erasure> for Erasures {
    fn from_iter<I: IntoIterator<Item = Erasure>>(erasures: I) -> Self {
        let mut all = Self::default();
        for erasure in erasures {
            all.insert(&erasure);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erasure(tenant: &str, target: Target, up_to: i64) -> Erasure {
        Erasure {
            tenant: tenant.to_owned(),
            target,
            up_to: Timestamp::from_microsecond(up_to).unwrap(),
            requested_at: Timestamp::UNIX_EPOCH,
            by: "admin".to_owned(),
        }
    }

    #[test]
    fn an_erasure_covers_its_tenant_its_target_and_its_past_only() {
        let sender = |name: &str| Target::Sender(name.to_owned());
        let mut all: Erasures = [
            erasure("a", sender("ann"), 100),
            erasure("a", Target::Message("m".to_owned()), 50),
        ]
        .into_iter()
        .collect();
        assert!(all.covers("a", Some("ann"), "x", 100));
        assert!(!all.covers("a", Some("ann"), "x", 101), "said later");
        assert!(!all.covers("b", Some("ann"), "x", 100), "another tenant");
        assert!(!all.covers("a", Some("bob"), "x", 100));
        assert!(!all.covers("a", None, "ann", 100), "an id is no sender");
        assert!(all.covers("a", None, "m", 50) && !all.covers("a", None, "m", 51));

        // A second one, and an older one that comes late.
        all.insert(&erasure("a", sender("ann"), 200));
        all.insert(&erasure("a", sender("ann"), 10));
        assert!(all.covers("a", Some("ann"), "x", 200));
        assert_eq!(format!("{all:?}"), "Erasures { count: 2 }");
    }

    #[test]
    fn nothing_that_is_to_be_forgotten_is_shown() {
        let one = erasure("a", Target::Sender("ann".to_owned()), 100);
        assert!(!format!("{one:?}").contains("ann"));
    }
}
