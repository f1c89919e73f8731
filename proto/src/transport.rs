//! The settings that every connection of Unanimo shares, and the way to reach an address.
//!
//! A lost segment can leave an HTTP/2 connection dead while the channel keeps sending calls into it. Deadlines
//! alone do not cure that, so there are three things together: a deadline for every call (set where it is made),
//! keep-alive on both ends, and a channel that reconnects once keep-alive has closed the connection.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tonic::transport::{Channel, Endpoint, Server};
use unanimo_core::mutants::{self, Mutant};

/// The largest message either side accepts: gRPC's usual 4 MiB. Everything larger is cut into pieces.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// How connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How often a ping is sent.
    pub interval: Duration,
    /// How long its answer may take before the connection counts as dead.
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        // A dead connection is noticed within 2 s, which is less than the shortest voting phase in use, and a ping
        // a second costs nothing.
        Self {
            connect_timeout: Duration::from_millis(500),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        }
    }
}

impl Keepalive {
    /// The endpoint of an address, with these settings.
    pub fn endpoint(&self, address: &str) -> Result<Endpoint, BadAddress> {
        let bad = |source| BadAddress {
            address: address.chars().take(300).collect(),
            source,
        };
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(bad)?;
        let endpoint = endpoint.connect_timeout(self.connect_timeout).tcp_nodelay(true);
        if mutants::is_on(Mutant::F2) {
            return Ok(endpoint);
        }
        Ok(endpoint
            .http2_keep_alive_interval(self.interval)
            .keep_alive_timeout(self.timeout)
            .keep_alive_while_idle(true))
    }

    /// A server with these settings and bounded streams per connection (R14).
    pub fn server(&self) -> Server {
        let interval = (!mutants::is_on(Mutant::F2)).then_some(self.interval);
        Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(interval)
            .http2_keepalive_timeout(Some(self.timeout))
            .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
    }
}

/// Calls in flight on one connection. Without it the number is unlimited; beyond it a client waits.
const MAX_STREAMS_PER_CONNECTION: u32 = 4096;

/// Something that is not an address.
#[derive(Debug, Error)]
#[error("{address:?} is not an address; use host:port")]
pub struct BadAddress {
    /// What was given, shortened.
    pub address: String,
    #[source]
    source: tonic::transport::Error,
}

/// Makes channels to addresses. Given to everything that calls out, so that the same code runs on real sockets
/// and inside a simulated network.
pub trait Connector: Send + Sync + 'static {
    /// A channel that connects when it is first used, and again whenever the connection is lost. Does no IO.
    fn channel(&self, address: &str) -> Result<Channel, BadAddress>;
}

/// Connects over TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector {
    /// How connections are kept.
    pub keepalive: Keepalive,
}

impl TcpConnector {
    /// The connector that real processes use.
    pub fn shared() -> Arc<dyn Connector> {
        Arc::new(Self::default())
    }
}

impl Connector for TcpConnector {
    fn channel(&self, address: &str) -> Result<Channel, BadAddress> {
        Ok(self.keepalive.endpoint(address)?.connect_lazy())
    }
}

/// Tells the wall-clock time. Given to everything that needs it, so that tests can move it (R8).
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> unanimo_core::Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The clock that real processes use.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> unanimo_core::Timestamp {
        // A clock set before 1970 reads as 1970: no rule depends on it (R8).
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        unanimo_core::Timestamp::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
