//! How long messages are kept: one setting, as the log, the lake and the store take it.
//!
//! A CQL database lets rows run out by itself; the embedded store is told to, now and then.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use weir_sinks::lake;
use weir_store::{Retention, embedded};

const EVERY: Duration = Duration::from_hours(1);
/// First when the start is over.
const FIRST: Duration = Duration::from_secs(30);

/// As the lake takes it.
pub(crate) fn of_lake(retention: &Retention) -> lake::Retention {
    let days = |(text_days, verdict_days)| lake::Days {
        text_days,
        verdict_days,
    };
    let tenants = retention.tenants.keys();
    lake::Retention {
        default: days((retention.text_days, retention.verdict_days)),
        tenants: tenants
            .map(|tenant| (tenant.clone(), days(retention.of(tenant))))
            .collect(),
    }
}

/// How long the log may keep any text: the shortest time of any tenant, because all
/// tenants share its topics. `None`: for as long as it likes.
pub(crate) fn of_log(retention: &Retention) -> Option<Duration> {
    let all = (retention.text_days, retention.verdict_days);
    let tenants = retention.tenants.keys();
    tenants
        .map(|tenant| retention.of(tenant))
        .chain([all])
        .flat_map(|(text, verdict)| [text, verdict])
        .filter(|days| *days > 0)
        .min()
        .map(|days| Duration::from_hours(24 * u64::from(days)))
}

/// Lets messages expire until `stop`.
pub(crate) async fn expire(
    store: Arc<embedded::Store>,
    retention: Retention,
    stop: CancellationToken,
) {
    let mut next = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = stop.cancelled() => return,
        }
        next = EVERY;
        match store.expire(&retention, Timestamp::now()).await {
            Ok(done) if done.texts + done.messages > 0 => tracing::info!(
                texts = done.texts,
                messages = done.messages,
                "their time is over: removed from the history"
            ),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "retention failed; tried again in an hour"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::from_file;

    #[test]
    fn one_setting_counts_for_log_history_and_lake() {
        let kept = from_file("").unwrap().retention;
        assert!(of_log(&kept).is_none() && of_lake(&kept).is_for_good());
        let text = "[retention]\ntext_days = 30\nverdict_days = 365\n\
                    [retention.tenants.acme]\ntext_days = 7\n";
        let config = from_file(text).unwrap();
        assert_eq!(config.cql.retention, config.retention);
        let week = Duration::from_hours(7 * 24);
        assert_eq!(
            of_log(&config.retention),
            Some(week),
            "all tenants share the log"
        );
        let lake = of_lake(&config.retention);
        assert_eq!(
            (lake.default.text_days, lake.default.verdict_days),
            (30, 365)
        );
        let acme = lake.tenants["acme"];
        assert_eq!((acme.text_days, acme.verdict_days), (7, 365));

        let wrong = from_file("[retention]\nverdict_days = 30\n").unwrap_err();
        assert!(format!("{wrong:#}").contains("text_days"), "{wrong:#}");
        let old = from_file("[cql.retention]\ntext_days = 7\n").unwrap_err();
        assert!(format!("{old:#}").contains("retention"), "{old:#}");
    }
}
