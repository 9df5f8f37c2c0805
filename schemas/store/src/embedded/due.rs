//! The days that have rows, for what runs out: by tenant, oldest first.

use super::keys::{Kind, bucket_of, oldest_first, text, untext};

/// Of the days that have rows, by tenant, oldest first: two indexes over the channels'
/// buckets, for what runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Days on which there are rows.
    Verdicts,
    /// Days on which there are rows with a text.
    Texts,
}

impl Due {
    /// First byte of the keys.
    const fn tag(self) -> u8 {
        match self {
            Self::Verdicts => b'V',
            Self::Texts => b'T',
        }
    }

    /// The first key of a tenant, as long as its day is this one or later.
    pub(super) fn from(self, tenant: &str, day: i32) -> Vec<u8> {
        let mut key = vec![self.tag()];
        text(&mut key, tenant);
        key.extend(oldest_first(day));
        key
    }

    /// Behind every key of a tenant, or before those of all.
    pub(super) fn behind(self, tenant: Option<&str>) -> Vec<u8> {
        let mut key = vec![self.tag()];
        if let Some(tenant) = tenant {
            text(&mut key, tenant);
            // Behind the two zeros that end the name.
            key.pop();
            key.push(1);
        }
        key
    }

    /// Behind all of its keys.
    pub(super) fn end(self) -> Vec<u8> {
        vec![self.tag() + 1]
    }

    /// The key of a channel's day.
    pub(super) fn key(self, tenant: &str, channel: &str, day: i32) -> Vec<u8> {
        let mut key = self.from(tenant, day);
        text(&mut key, channel);
        key
    }

    /// Tenant, channel and day in a key.
    pub(super) fn parts(self, key: &[u8]) -> Option<(String, String, i32)> {
        let (tenant, rest) = untext(key.strip_prefix(&[self.tag()])?)?;
        let (day, rest) = rest.split_first_chunk::<4>()?;
        let (channel, _) = untext(rest)?;
        let day = (u32::from_be_bytes(*day) ^ (1 << 31)).cast_signed();
        Some((tenant, channel, day))
    }
}

/// The keys of both indexes for a channel's bucket; none for a sender's.
pub(super) fn days_of(bucket: &[u8]) -> Option<[Vec<u8>; 2]> {
    let (tenant, channel, day) = bucket_of(Kind::Channel, bucket)?;
    Some([Due::Verdicts, Due::Texts].map(|due| due.key(&tenant, &channel, day)))
}

#[cfg(test)]
mod tests {
    use super::super::keys::{bucket, tests::name};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn days_that_run_out_are_found_by_tenant_oldest_first(
            (t1, n1, t2, n2) in (name(), name(), name(), name()), day1: i32, day2: i32,
        ) {
            for due in [Due::Verdicts, Due::Texts] {
                let (one, two) = (due.key(&t1, &n1, day1), due.key(&t2, &n2, day2));
                prop_assert_eq!(due.parts(&one), Some((t1.clone(), n1.clone(), day1)));
                prop_assert!(one >= due.behind(None) && one < due.end());
                let mine = due.from(&t1, i32::MIN)..due.behind(Some(&t1));
                prop_assert!(mine.contains(&one));
                prop_assert_eq!(mine.contains(&two), t1 == t2);
                if t1 == t2 && day1 < day2 {
                    prop_assert!(one < two && one < due.from(&t1, day2));
                }
            }
            let both = days_of(&bucket(Kind::Channel, &t1, &n1, day1));
            prop_assert_eq!(both, Some([Due::Verdicts, Due::Texts].map(|due| due.key(&t1, &n1, day1))));
            prop_assert_eq!(days_of(&bucket(Kind::Sender, &t1, &n1, day1)), None);
        }
    }
}
