//! The topic settings this broker honours, under Kafka's names.

use std::collections::BTreeMap;

/// `max.message.bytes` unless set: 1 MiB of records and Kafka's overhead.
const MAX_MESSAGE_BYTES: usize = 1_048_588;

/// One setting, as shown to clients.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    pub(crate) kind: Kind,
    pub(crate) documentation: &'static str,
}

/// The protocol's numbers for the type of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text = 2,
    Int = 3,
    Long = 5,
}

/// Every setting that may be given. Those of kind `Text` but the time-stamp type have one legal value.
pub(crate) const ALL: &[Setting] = &[
    Setting {
        name: "cleanup.policy",
        default: "delete",
        kind: Kind::Text,
        documentation: "Always delete: old segments are removed as a whole.",
    },
    Setting {
        name: "compression.type",
        default: "producer",
        kind: Kind::Text,
        documentation: "Always producer: batches are stored as they were sent.",
    },
    Setting {
        name: "max.message.bytes",
        default: "1048588",
        kind: Kind::Int,
        documentation: "Largest record batch, in bytes.",
    },
    Setting {
        name: "message.timestamp.type",
        default: "CreateTime",
        kind: Kind::Text,
        documentation: "CreateTime keeps the producer's time stamps, LogAppendTime sets the broker's.",
    },
    Setting {
        name: "retention.bytes",
        default: "-1",
        kind: Kind::Long,
        documentation: "Bytes kept in each partition, in whole segments; -1 keeps all.",
    },
    Setting {
        name: "retention.ms",
        default: "604800000",
        kind: Kind::Long,
        documentation: "Milliseconds that records are kept, in whole segments; -1 keeps all.",
    },
    Setting {
        name: "segment.bytes",
        default: "268435456",
        kind: Kind::Int,
        documentation: "Bytes after which a new segment file is begun.",
    },
    Setting {
        name: "segment.ms",
        default: "604800000",
        kind: Kind::Long,
        documentation: "Milliseconds after whose first record a new segment file is begun, however short the old one.",
    },
];

/// The settings of a topic, parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) max_message_bytes: usize,
    pub(crate) retention_ms: Option<i64>,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) segment_bytes: u64,
    pub(crate) segment_ms: i64,
    pub(crate) log_append_time: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_message_bytes: MAX_MESSAGE_BYTES,
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            segment_bytes: 268_435_456,
            segment_ms: 604_800_000,
            log_append_time: false,
        }
    }
}

/// What was set for a topic, by name; the rest is default.
pub(crate) type Overrides = BTreeMap<String, String>;

impl Settings {
    /// Reads overrides.
    ///
    /// # Errors
    /// Says which setting is unknown or has a value that isn't legal.
    pub(crate) fn parse(overrides: &Overrides) -> Result<Self, String> {
        let mut settings = Self::default();
        for (name, value) in overrides {
            let illegal = || format!("Invalid value {value} for configuration {name}");
            let number = || value.trim().parse::<i64>().map_err(|_| illegal());
            let at_least = |least: i64, most: i64| {
                number().and_then(|number| {
                    if (least..=most).contains(&number) {
                        Ok(number)
                    } else {
                        Err(illegal())
                    }
                })
            };
            match name.as_str() {
                "cleanup.policy" if value == "delete" => {}
                "compression.type" if value == "producer" => {}
                "message.timestamp.type" if value == "CreateTime" => {
                    settings.log_append_time = false
                }
                "message.timestamp.type" if value == "LogAppendTime" => {
                    settings.log_append_time = true
                }
                "max.message.bytes" => {
                    let bytes = at_least(0, i64::from(i32::MAX))?;
                    settings.max_message_bytes = usize::try_from(bytes).map_err(|_| illegal())?;
                }
                "retention.ms" => {
                    settings.retention_ms = Some(at_least(-1, i64::MAX)?).filter(|ms| *ms >= 0)
                }
                "retention.bytes" => {
                    settings.retention_bytes = u64::try_from(at_least(-1, i64::MAX)?).ok()
                }
                "segment.bytes" => {
                    settings.segment_bytes = at_least(14, i64::from(i32::MAX))?.unsigned_abs();
                }
                "segment.ms" => settings.segment_ms = at_least(1, i64::MAX)?,
                "cleanup.policy" | "compression.type" | "message.timestamp.type" => {
                    return Err(illegal());
                }
                _ => return Err(format!("Unknown topic config name: {name}")),
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_shown_defaults_are_the_real_ones() {
        let shown = ALL
            .iter()
            .map(|one| (one.name.to_owned(), one.default.to_owned()))
            .collect();
        assert_eq!(Settings::parse(&shown).unwrap(), Settings::default());
    }

    #[test]
    fn illegal_settings_are_named() {
        for (name, value) in [
            ("retention.ms", "soon"),
            ("retention.ms", "-2"),
            ("segment.bytes", "1"),
            ("segment.ms", "0"),
            ("cleanup.policy", "compact"),
            ("no.such.thing", "1"),
        ] {
            let overrides = Overrides::from([(name.to_owned(), value.to_owned())]);
            assert!(
                Settings::parse(&overrides).unwrap_err().contains(name),
                "{name}={value}"
            );
        }
    }
}
