//! Rate limits: per caller, and per client address for what needs no credential.
//!
//! Each limit is a token bucket of fixed size. The number of addresses and callers
//! remembered is bounded: when it is reached, the least seen are forgotten.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use moka::sync::Cache;
use prometheus::{IntCounter, IntCounterVec};

use crate::config::Config;
use crate::metrics::Metrics;

/// Why a caller may not go on now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limited {
    /// Come back after that.
    For(Duration),
    /// So many at once never fit; this many do.
    Never(u32),
}

/// One caller's bucket.
pub(crate) struct CallerLimit {
    bucket: DefaultDirectRateLimiter,
    burst: u32,
    clock: DefaultClock,
    refused: IntCounter,
}

impl CallerLimit {
    /// Takes `n`, all or none.
    pub(crate) fn take(&self, n: u32) -> Result<(), Limited> {
        let Some(cells) = NonZeroU32::new(n) else {
            return Ok(());
        };
        let refusal = match self.bucket.check_n(cells) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(until)) => Limited::For(until.wait_time_from(self.clock.now())),
            Err(_) => Limited::Never(self.burst),
        };
        self.refused.inc();
        Err(refusal)
    }
}

/// Hands each caller its bucket, the same one as long as the caller is seen.
pub(crate) struct CallerLimits {
    quota: Option<Quota>,
    buckets: Cache<String, Arc<CallerLimit>>,
    refused: IntCounter,
}

impl CallerLimits {
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Self {
        let quota = NonZeroU32::new(config.caller_per_second).map(|rate| {
            Quota::per_second(rate)
                .allow_burst(NonZeroU32::new(config.caller_burst).unwrap_or(rate))
        });
        Self {
            quota,
            buckets: Cache::builder()
                .max_capacity(config.cached_credentials)
                .time_to_idle(Duration::from_secs(600))
                .build(),
            refused: metrics.limited_caller.clone(),
        }
    }

    /// The bucket of that caller; `None` where there is no limit.
    pub(crate) fn of(&self, id: &str) -> Option<Arc<CallerLimit>> {
        let quota = self.quota?;
        Some(self.buckets.get_with_by_ref(id, || {
            Arc::new(CallerLimit {
                bucket: RateLimiter::direct(quota),
                burst: quota.burst_size().get(),
                clock: DefaultClock::default(),
                refused: self.refused.clone(),
            })
        }))
    }
}

/// What is limited by address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Door {
    /// `POST /v1/register`.
    Register,
    /// `POST /v1/token`.
    Token,
    /// Credentials that did not work, at any door.
    Failed,
}

impl Door {
    const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Token => "token",
            Self::Failed => "failed",
        }
    }
}

/// A bucket for each door and address.
pub(crate) struct AddressLimits {
    quota: Option<Quota>,
    buckets: Cache<(Door, IpAddr), Arc<DefaultDirectRateLimiter>>,
    clock: DefaultClock,
    refused: IntCounterVec,
}

impl AddressLimits {
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Self {
        let quota = NonZeroU32::new(config.address_per_minute).map(|rate| {
            Quota::per_minute(rate)
                .allow_burst(NonZeroU32::new(config.address_burst).unwrap_or(rate))
        });
        // A bucket is full again, and so worth forgetting, after this time.
        let refill = quota.map_or(Duration::from_secs(60), |q| q.burst_size_replenished_in());
        Self {
            quota,
            buckets: Cache::builder()
                .max_capacity(config.tracked_addresses)
                .time_to_idle(refill + Duration::from_secs(1))
                .build(),
            clock: DefaultClock::default(),
            refused: metrics.limited.clone(),
        }
    }

    /// Takes one from the bucket of that address.
    pub(crate) fn take(&self, door: Door, address: IpAddr) -> Result<(), Duration> {
        let Some(quota) = self.quota else {
            return Ok(());
        };
        let bucket = self.buckets.get_with((door, network(address)), || {
            Arc::new(RateLimiter::direct(quota))
        });
        bucket.check().map_err(|until| {
            self.refused.with_label_values(&[door.name()]).inc();
            until.wait_time_from(self.clock.now())
        })
    }
}

/// What one client can be expected to own: an IPv4 address, or an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_can_not_escape_its_limit_inside_its_own_network() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
    }
}
