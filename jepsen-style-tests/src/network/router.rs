use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::SyncDevice;

use super::traffic::Traffic;
use super::{Host, Link};

/// Longer than any packet.
const BUFFER: usize = 4096;
/// Packets that are taken from one device before it is the next one's turn.
const TURN: usize = 64;

/// The thread that carries packets from namespace to namespace. It sleeps until a packet comes or one is due.
/// Dropping it ends the thread, and with it the devices.
pub(super) struct Router {
    traffic: Arc<Mutex<Traffic>>,
    devices: Option<Sender<(Host, SyncDevice)>>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Router {
    pub(super) fn start(traffic: Traffic) -> io::Result<Self> {
        let traffic = Arc::new(Mutex::new(traffic));
        let (devices, new_devices) = channel();
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let carrier = Carrier {
            traffic: Arc::clone(&traffic),
            new_devices,
            woken,
            devices: BTreeMap::new(),
        };
        let thread = thread::Builder::new().name("router".to_owned()).spawn(|| {
            if let Err(error) = carrier.carry() {
                tracing::error!(%error, "the router ended");
            }
        })?;
        Ok(Self {
            traffic,
            devices: Some(devices),
            wake,
            thread: Some(thread),
        })
    }

    /// From now on packets of this host are carried.
    pub(super) fn attach(&self, host: Host, device: SyncDevice) -> io::Result<()> {
        let ended = || io::Error::other("the router has ended");
        let devices = self.devices.as_ref().ok_or_else(ended)?;
        devices.send((host, device)).map_err(|_| ended())?;
        (&self.wake).write_all(&[1])
    }

    pub(super) fn traffic(&self) -> MutexGuard<'_, Traffic> {
        lock(&self.traffic)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        drop(self.devices.take());
        // If this fails the thread has ended already.
        let _ = (&self.wake).write_all(&[1]);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Each change of the traffic is whole, so a panic elsewhere leaves nothing half done.
fn lock(traffic: &Mutex<Traffic>) -> MutexGuard<'_, Traffic> {
    traffic.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread owns.
struct Carrier {
    traffic: Arc<Mutex<Traffic>>,
    new_devices: Receiver<(Host, SyncDevice)>,
    woken: UnixStream,
    devices: BTreeMap<Host, SyncDevice>,
}

impl Carrier {
    fn carry(mut self) -> io::Result<()> {
        loop {
            let (woken, ready) = self.wait()?;
            if woken && !self.take_devices() {
                return Ok(());
            }
            for host in ready {
                self.take(host)?;
            }
            self.deliver();
        }
    }

    /// Sleeps until there is something to do: who is woken, and whose packets are there.
    fn wait(&self) -> io::Result<(bool, Vec<Host>)> {
        let timeout = match lock(&self.traffic).due() {
            None => PollTimeout::NONE,
            Some(due) => {
                // Rounded up, so that we do not wake again and again just before it is due.
                let late = due
                    .saturating_duration_since(Instant::now())
                    .as_micros()
                    .div_ceil(1000);
                u16::try_from(late).map_or(PollTimeout::MAX, PollTimeout::from)
            }
        };
        let mut polled = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        let devices = self.devices.values();
        polled.extend(devices.map(|device| PollFd::new(device.as_fd(), PollFlags::POLLIN)));
        match poll(&mut polled, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok((false, Vec::new())),
            Err(error) => return Err(error.into()),
        }
        let mut ready = polled.iter().map(|polled| polled.any().unwrap_or(true));
        let woken = ready.next().unwrap_or(false);
        let hosts = self.devices.keys().zip(ready).filter(|(_, ready)| *ready);
        Ok((woken, hosts.map(|(host, _)| *host).collect()))
    }

    /// Whether to go on.
    fn take_devices(&mut self) -> bool {
        let mut wakes = [0; 64];
        // Read or not: it is looked at again as long as something is there.
        let _ = self.woken.read(&mut wakes);
        loop {
            match self.new_devices.try_recv() {
                Ok((host, device)) => {
                    self.devices.insert(host, device);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn take(&self, from: Host) -> io::Result<()> {
        let Some(device) = self.devices.get(&from) else {
            return Ok(());
        };
        let mut buffer = [0; BUFFER];
        for _ in 0..TURN {
            let length = match device.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let packet = &buffer[..length];
            if let Some(to) = destination(packet).filter(|to| self.devices.contains_key(to)) {
                lock(&self.traffic).arrive(Link { from, to }, packet, Instant::now());
            }
        }
        Ok(())
    }

    fn deliver(&self) {
        let now = Instant::now();
        loop {
            let next = lock(&self.traffic).deliver(now);
            let Some((to, packet)) = next else { return };
            if let Some(device) = self.devices.get(&to)
                && let Err(error) = device.send(&packet)
            {
                // The sender sends it again, as it does when a network loses it.
                tracing::debug!(%to, %error, "a packet was lost");
            }
        }
    }
}

/// To whom a packet goes: none for what is not IPv4, such as the system's own IPv6 solicitations.
fn destination(packet: &[u8]) -> Option<Host> {
    let version = packet.first()? >> 4;
    let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (version == 4).then(|| Host::at(Ipv4Addr::from(address)))?
}
