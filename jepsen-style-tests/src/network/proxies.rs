use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc, watch};

use super::dialler::dialler;
use super::{Counts, Host, Link, Rule};
use crate::random::Seed;

/// One question at a time about who has dialled: it goes through what every process has open, and a storm of connections
/// would leave the processes no time to answer the first of them.
static LOOKUPS: Semaphore = Semaphore::const_new(1);
/// Bytes taken from a connection at once.
const PIECE: usize = 16 * 1024;
/// Pieces of one direction of a connection on their way at once.
const ROOM: usize = 256;

/// A proxy before each host. Who dials it is found out, so that what happens to a link happens to the bytes from one host
/// to another, whichever of them has made the connection. What is cut off is not lost: it comes when the link is up
/// again, as what TCP repeats does.
pub(super) struct Proxies {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    seed: Seed,
    links: Mutex<BTreeMap<Link, State>>,
    /// Where each host listens, behind its proxy.
    hosts: Mutex<BTreeMap<Host, SocketAddr>>,
    /// Told whenever a rule changes.
    changed: watch::Sender<()>,
}

struct State {
    rule: Rule,
    since: Instant,
    random: StdRng,
    counts: Counts,
}

impl Proxies {
    pub(super) fn start(seed: Seed) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("proxies")
            .enable_all()
            .build()?;
        let shared = Shared {
            seed,
            links: Mutex::default(),
            hosts: Mutex::default(),
            changed: watch::Sender::new(()),
        };
        Ok(Self {
            shared: Arc::new(shared),
            runtime: Some(runtime),
        })
    }

    /// From now on whoever dials the listener reaches this host, which listens at `behind`.
    pub(super) fn add(&self, host: Host, listener: StdListener, behind: SocketAddr) -> io::Result<()> {
        let Some(runtime) = &self.runtime else {
            return Err(io::Error::other("the proxies have ended"));
        };
        listener.set_nonblocking(true)?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        lock(&self.shared.hosts).insert(host, behind);
        runtime.spawn(Arc::clone(&self.shared).accept(host, listener, behind));
        Ok(())
    }

    pub(super) fn hosts(&self) -> Vec<Host> {
        lock(&self.shared.hosts).keys().copied().collect()
    }

    pub(super) fn set(&self, links: &[Link], rule: Rule) {
        let now = Instant::now();
        for link in links {
            self.shared.with(*link, |state| {
                state.rule = rule;
                state.since = now;
            });
        }
        self.shared.changed.send_replace(());
    }

    pub(super) fn counts(&self, link: Link) -> Counts {
        self.shared.with(link, |state| state.counts)
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Each change is whole, so a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn with<T>(&self, link: Link, act: impl FnOnce(&mut State) -> T) -> T {
        let mut links = lock(&self.links);
        act(links.entry(link).or_insert_with(|| State {
            rule: Rule::default(),
            since: Instant::now(),
            random: self.seed.stream(&format!("link {link}")),
            counts: Counts::default(),
        }))
    }

    async fn accept(self: Arc<Self>, to: Host, listener: TcpListener, behind: SocketAddr) {
        loop {
            match listener.accept().await {
                Ok((stream, dialled_from)) => {
                    tokio::spawn(Arc::clone(&self).connect(to, stream, dialled_from, behind));
                }
                Err(error) => {
                    tracing::warn!(%to, %error, "a connection was not taken");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    async fn connect(self: Arc<Self>, to: Host, dialled: TcpStream, from: SocketAddr, behind: SocketAddr) {
        let hosts = lock(&self.hosts).clone();
        // Whoever has given up meanwhile is found out at once: its socket is gone.
        let turn = LOOKUPS.acquire().await;
        let found = tokio::task::spawn_blocking(move || dialler(from, &hosts)).await;
        drop(turn);
        let Ok(Some(from)) = found else {
            // It is gone, or no process of ours. Whoever it is dials again.
            return;
        };
        let (there, back) = (Link { from, to }, Link { from: to, to: from });
        self.until_up(there).await;
        self.until_up(back).await;
        let Ok(reached) = TcpStream::connect(behind).await else {
            return;
        };
        // Refused only by a connection that is gone already, which its first read will tell.
        let _ = (dialled.set_nodelay(true), reached.set_nodelay(true));
        let (from_dialler, to_dialler) = dialled.into_split();
        let (from_host, to_host) = reached.into_split();
        tokio::join!(
            self.carry(there, from_dialler, to_host),
            self.carry(back, from_host, to_dialler)
        );
    }

    /// Carries bytes in one direction, until there are no more.
    async fn carry(&self, link: Link, from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin) {
        let (sender, receiver) = mpsc::channel(ROOM);
        tokio::join!(self.take(link, from, sender), self.deliver(link, to, receiver));
    }

    async fn take(
        &self,
        link: Link,
        mut from: impl AsyncRead + Unpin,
        pieces: mpsc::Sender<(Instant, Vec<u8>)>,
    ) {
        let mut buffer = vec![0; PIECE];
        let mut tail = Instant::now();
        loop {
            let length = tokio::select! {
                read = from.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(length) => length,
                },
                // Whom it is for is gone.
                () = pieces.closed() => return,
            };
            tail = tail.max(self.with(link, |state| state.due(Instant::now())));
            if pieces.send((tail, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    }

    async fn deliver(
        &self,
        link: Link,
        mut to: impl AsyncWrite + Unpin,
        mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
    ) {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due.into()).await;
            self.until_up(link).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // That there is no more has to be carried like everything else.
        self.until_up(link).await;
        let _ = to.shutdown().await;
    }

    /// Waits until what is sent on this link passes.
    async fn until_up(&self, link: Link) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let down_for = self.with(link, |state| state.rule.down_for(state.since.elapsed()));
            match down_for {
                Some(Duration::ZERO) => return,
                Some(down_for) => {
                    let _ = tokio::time::timeout(down_for, changed.changed()).await;
                }
                None => {
                    if changed.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

impl State {
    /// When a piece that comes now is delivered if the link is up.
    fn due(&mut self, now: Instant) -> Instant {
        self.counts.sent += 1;
        if self.rule.is_down(now.saturating_duration_since(self.since)) {
            self.counts.cut += 1;
        }
        let mut late = self.rule.delay;
        if self.rule.jitter > Duration::ZERO {
            late += self.rule.jitter.mul_f64(self.random.random::<f64>());
        }
        if late > Duration::ZERO {
            self.counts.delayed += 1;
        }
        now + late
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::time::timeout;

    use super::*;
    use crate::cluster::Member;

    const HOST: Host = Host::Member(Member::Participant(1));
    const THERE: Link = Link {
        from: Host::Clients,
        to: HOST,
    };
    const BACK: Link = Link {
        from: HOST,
        to: Host::Clients,
    };

    /// Says the same again, behind a proxy.
    async fn echo() -> (Proxies, TcpStream) {
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let behind = echo.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = echo.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let proxies = Proxies::start(Seed(1)).unwrap();
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        proxies.add(HOST, listener, behind).unwrap();
        (proxies, TcpStream::connect(address).await.unwrap())
    }

    async fn ask(stream: &mut TcpStream) {
        stream.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_cut_off_comes_when_the_link_is_up_again() {
        let (proxies, mut stream) = echo().await;
        ask(&mut stream).await;
        for link in [THERE, BACK] {
            proxies.set(&[link], Rule::cut());
            let asked = timeout(Duration::from_millis(300), ask(&mut stream)).await;
            assert!(asked.is_err(), "nothing passes");
            assert!(proxies.counts(link).cut > 0);
            proxies.set(&[link], Rule::default());
            let mut heard = [0; 5];
            timeout(Duration::from_secs(10), stream.read_exact(&mut heard))
                .await
                .unwrap()
                .unwrap();
            ask(&mut stream).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_late_is_late_and_in_order() {
        let (proxies, mut stream) = echo().await;
        let rule = Rule {
            delay: Duration::from_millis(100),
            jitter: Duration::from_millis(50),
            ..Rule::default()
        };
        proxies.set(&[THERE], rule);
        let began = Instant::now();
        for _ in 0..3 {
            ask(&mut stream).await;
        }
        assert!(began.elapsed() >= Duration::from_millis(300));
        assert_eq!(proxies.counts(THERE).delayed, 3);
        assert_eq!(proxies.counts(BACK).delayed, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn that_there_is_no_more_is_carried_too() {
        let (proxies, mut stream) = echo().await;
        ask(&mut stream).await;
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        timeout(Duration::from_secs(10), stream.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert!(rest.is_empty());
        assert_eq!(proxies.hosts(), [HOST]);
    }
}
