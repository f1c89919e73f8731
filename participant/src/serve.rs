use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::service::RoutesBuilder;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use unanimo_proto::transport::Keepalive;
use unanimo_proto::v1::participant_server::ParticipantServer;

use crate::gate::{Gate, Standing, spawn_watched};
use crate::{Endpoint, Participant, ServeError, StopReason};

/// How long connections may take to close once every call has been answered.
const CLOSING: Duration = Duration::from_millis(500);

impl Participant {
    /// Serves the participant, gRPC health and reflection on this listener, for services that serve nothing else.
    /// When `shutdown` resolves, the participant is shut down as well.
    ///
    /// # Errors
    ///
    /// [`ServeError::Stopped`] if the participant stopped by itself; the process should end with an error.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let accepted = TcpListenerStream::new(listener).map(without_delay);
        self.serve_incoming(accepted, shutdown).await
    }

    /// The same on connections that the caller accepts.
    ///
    /// # Errors
    ///
    /// Those of [`serve`](Self::serve).
    pub async fn serve_incoming<I, IO>(
        &self,
        incoming: I,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError>
    where
        I: Stream<Item = io::Result<IO>>,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(self.service())
            .add_service(self.health_service())
            .add_service(reflection());
        let gate = Arc::clone(self.gate());
        let server = Keepalive::default()
            .server()
            .add_routes(routes.routes())
            .serve_with_incoming_shutdown(incoming, async move { gate.stopping().await });
        let mut server = std::pin::pin!(server);
        // A server that has not ended is polled on below. The others only wait.
        let ended = tokio::select! {
            ended = &mut server => Some(ended),
            () = shutdown => None,
            _ = self.stopped() => None,
        };
        let closed = match ended {
            Some(ended) => ended,
            // Calls that wait are answered while the participant stops. A peer that then keeps its end open, such
            // as one that watches the health, is left behind.
            None => tokio::select! {
                closed = &mut server => closed,
                () = self.stop_and_linger() => Ok(()),
            },
        };
        self.shutdown().await;
        match self.stopped().await {
            StopReason::Shutdown => Ok(closed?),
            reason => Err(ServeError::Stopped(reason)),
        }
    }

    /// gRPC health for a server that the caller puts together: serving while this participant does, under the
    /// name of its service and under the empty name. Spawns a task that keeps it up to date.
    pub fn health_service(&self) -> HealthServer<HealthService> {
        let reporter = HealthReporter::new();
        let service = HealthService::from_health_reporter(reporter.clone());
        let now = self.gate().standing().borrow().clone();
        // Said before anybody can ask. Nobody else has the reporter yet, so there is nothing to wait for.
        let said = set_status(&reporter, &now).now_or_never();
        assert!(said.is_some(), "the reporter is ours alone");
        let reporting = report(Arc::clone(self.gate()), reporter);
        spawn_watched(self.gate(), reporting);
        HealthServer::new(service)
    }

    async fn stop_and_linger(&self) {
        self.shutdown().await;
        tokio::time::sleep(CLOSING).await;
    }
}

/// Reflection for every public and internal message, so that command line tools need no .proto files.
fn reflection()
-> tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection> {
    let built = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(unanimo_proto::FILE_DESCRIPTOR_SET)
        .build_v1();
    match built {
        Ok(service) => service,
        Err(error) => unreachable!("the descriptors were made together with this code: {error}"),
    }
}

/// Keeps the reported health up to date until the participant has stopped.
async fn report(gate: Arc<Gate>, reporter: HealthReporter) {
    let mut standing = gate.standing();
    loop {
        let now = standing.borrow_and_update().clone();
        set_status(&reporter, &now).await;
        if matches!(now, Standing::Stopped(_)) || standing.changed().await.is_err() {
            return;
        }
    }
}

async fn set_status(reporter: &HealthReporter, standing: &Standing) {
    if matches!(standing, Standing::Serving) {
        reporter.set_service_status("", ServingStatus::Serving).await;
        reporter.set_serving::<ParticipantServer<Endpoint>>().await;
    } else {
        reporter.set_service_status("", ServingStatus::NotServing).await;
        reporter.set_not_serving::<ParticipantServer<Endpoint>>().await;
    }
}

fn without_delay(accepted: io::Result<TcpStream>) -> io::Result<TcpStream> {
    let stream = accepted?;
    // Refused only by a connection that is gone already, which its first read will tell.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
