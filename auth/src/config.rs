//! What an operator may set about accounts, keys and their limits.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Accounts, tokens, keys and limits. Every default is safe to run with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether strangers may make accounts by `POST /v1/register`.
    pub registration: bool,
    /// The tenant of accounts made that way.
    pub registration_tenant: String,
    /// `iss` of the tokens.
    pub issuer: String,
    /// `aud` of the tokens.
    pub audience: String,
    /// How long a token works, in seconds.
    pub token_seconds: u32,
    /// How long a checked credential is trusted without looking again, in seconds:
    /// within this time a revoked key or a disabled user is shut out.
    pub recheck_seconds: u32,
    /// Checked credentials, and rate limits of callers, kept in memory at most; at least 1.
    pub cached_credentials: u64,
    /// Messages (and other requests) a second for each key or user; 0 is no limit.
    pub caller_per_second: u32,
    /// How many of them may come at once, and so the largest batch; 0 is as many as
    /// in one second.
    pub caller_burst: u32,
    /// Registrations, token requests and failed authentications a minute for each
    /// client address, each counted apart; 0 is no limit.
    pub address_per_minute: u32,
    /// How many of them may come at once; 0 is as many as in one minute.
    pub address_burst: u32,
    /// Client addresses remembered at most; at least 1.
    pub tracked_addresses: u64,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Password hashes computed at once; 0 is one for each core. Each takes 19 MiB.
    pub hashing_threads: usize,
    /// Password hashes that may wait; the next is refused with 503.
    pub hashing_queue: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registration: true,
            registration_tenant: "default".to_owned(),
            issuer: "weir".to_owned(),
            audience: "weir".to_owned(),
            token_seconds: 900,
            recheck_seconds: 5,
            cached_credentials: 10_000,
            caller_per_second: 500_000,
            caller_burst: 0,
            address_per_minute: 10,
            address_burst: 10,
            tracked_addresses: 20_000,
            trusted_proxies: Vec::new(),
            hashing_threads: 0,
            hashing_queue: 32,
        }
    }
}
