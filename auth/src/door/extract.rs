//! The caller of a request, and the address it came from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRef, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};

use super::Problem;
use crate::{Auth, Caller, Denied};

/// The caller, authenticated and within its rate limit.
///
/// Rejects with 401 and `WWW-Authenticate`, with 429 when the caller, or the address
/// of failed attempts, is over its limit, or with 503.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Arc<Caller>);

impl Deref for Authenticated {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl<S> FromRequestParts<S> for Authenticated
where
    Auth: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let auth = Auth::from_ref(state);
        let answer = match bearer(&parts.headers) {
            Some(credential) => auth.authenticate(credential).await,
            None => Err(Denied::Missing),
        };
        match answer {
            Ok(caller) => {
                caller.admit(1)?;
                Ok(Self(caller))
            }
            Err(denied) => {
                if denied == Denied::Invalid {
                    auth.count_failure(client_address(parts, &auth))?;
                }
                Err(denied.into())
            }
        }
    }
}

/// The credential of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credential) = value.split_once(' ')?;
    let credential = credential.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty()).then_some(credential)
}

/// The client's address: the peer of the connection, or what a trusted proxy says.
/// The server must be run with `into_make_service_with_connect_info::<SocketAddr>()`;
/// without it all clients count as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl<S> FromRequestParts<S> for ClientAddress
where
    Auth: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(client_address(parts, &Auth::from_ref(state))))
    }
}

fn client_address(parts: &Parts, auth: &Auth) -> IpAddr {
    let peer = parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |info| info.0.ip());
    resolve(peer, &parts.headers, auth.trusted_proxies())
}

/// Walks `X-Forwarded-For` from its end, as long as the address before is a trusted
/// proxy: whoever is untrusted may have written everything to its left.
fn resolve(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");
    let trusts = |address: IpAddr| {
        let address = address.to_canonical();
        trusted.iter().any(|proxy| proxy.to_canonical() == address)
    };
    let mut client = peer;
    if !trusts(client) {
        return client;
    }
    // A line that can't be read ends the walk: what is left of it is anybody's.
    let lines: Vec<&str> = headers
        .get_all(FORWARDED)
        .iter()
        .map(|line| line.to_str().unwrap_or_default())
        .collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Ok(address) = hop.trim().parse::<IpAddr>() else {
            break;
        };
        client = address;
        if !trusts(client) {
            break;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn forwarded(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            HeaderName::from_static("x-forwarded-for"),
            value.parse().unwrap(),
        )])
    }

    #[test]
    fn a_forwarded_address_counts_only_behind_a_trusted_proxy() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let proxy = [ip("10.0.0.1"), ip("10.0.0.2")];
        assert_eq!(
            resolve(ip("192.0.2.1"), &forwarded("198.51.100.7"), &proxy),
            ip("192.0.2.1")
        );
        assert_eq!(
            resolve(ip("10.0.0.1"), &forwarded("198.51.100.7"), &proxy),
            ip("198.51.100.7")
        );
        assert_eq!(
            resolve(
                ip("10.0.0.1"),
                &forwarded("1.1.1.1, 198.51.100.7, 10.0.0.2"),
                &proxy
            ),
            ip("198.51.100.7"),
            "what the client wrote itself is not believed"
        );
        assert_eq!(
            resolve(ip("10.0.0.1"), &forwarded("nonsense"), &proxy),
            ip("10.0.0.1")
        );
        let mut lines = forwarded("1.1.1.1");
        let unreadable = HeaderValue::from_bytes(b"\xFF, 198.51.100.7").unwrap();
        lines.append("x-forwarded-for", unreadable);
        assert_eq!(
            resolve(ip("10.0.0.1"), &lines, &proxy),
            ip("10.0.0.1"),
            "what stands before an unreadable line is not believed"
        );
        lines.append("x-forwarded-for", "198.51.100.7".parse().unwrap());
        assert_eq!(
            resolve(ip("10.0.0.1"), &lines, &proxy),
            ip("198.51.100.7"),
            "what the proxy itself added behind it is"
        );
    }
}
