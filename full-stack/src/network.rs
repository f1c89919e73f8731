//! The simulated network, as the transport of gRPC sees it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Uri};
use turmoil::net::{TcpListener, TcpStream};
use unanimo_proto::transport::{BadAddress, Connector, Keepalive};

/// Where every host serves.
pub(crate) const PORT: u16 = 7101;

/// Where this host is reached.
pub(crate) fn address(host: &str) -> String {
    format!("{host}:{PORT}")
}

/// Connects over the simulated network, with the settings of real connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimulatedConnector;

impl Connector for SimulatedConnector {
    fn channel(&self, address: &str) -> Result<Channel, BadAddress> {
        let connect = |uri: Uri| async move {
            let host = uri.host().unwrap_or_default().to_owned();
            let port = uri.port_u16().unwrap_or(PORT);
            TcpStream::connect((host, port)).await.map(TokioIo::new)
        };
        let endpoint = Keepalive::default().endpoint(address)?;
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(connect)))
    }
}

/// Listens on this host.
pub(crate) async fn listen() -> io::Result<impl Stream<Item = io::Result<Connection>> + Send + 'static> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    Ok(futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await;
        Some((accepted.map(|(stream, _)| Connection(stream)), listener))
    }))
}

/// A connection that was accepted.
pub(crate) struct Connection(TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
