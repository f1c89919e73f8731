use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;

use nix::sys::socket::{SockaddrIn, getsockname};

use super::Host;

/// A connection or a listener of this machine, as the system lists it.
struct Socket {
    local: SocketAddr,
    listens: bool,
    inode: u64,
}

/// How the system writes the state of a listener.
const LISTENS: &str = "0A";

/// Whose end of a connection has this address: that of the host whose process has it. A process is known by where it
/// listens, and ours is that of the clients.
pub(super) fn dialler(address: SocketAddr, hosts: &BTreeMap<Host, SocketAddr>) -> Option<Host> {
    // Most come from here, and the list of all connections of the machine is long.
    if is_ours(address) {
        return Some(Host::Clients);
    }
    let sockets = sockets(&fs::read_to_string("/proc/net/tcp").ok()?);
    let dialled = sockets
        .iter()
        .find(|socket| !socket.listens && socket.local == address)?
        .inode;
    let listeners: BTreeMap<u64, Host> = sockets
        .iter()
        .filter(|socket| socket.listens)
        .filter_map(|socket| {
            let host = hosts.iter().find(|(_, behind)| **behind == socket.local);
            host.map(|(host, _)| (socket.inode, *host))
        })
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let names = processes.filter_map(|process| process.file_name().into_string().ok());
    let numbers = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let owned = numbers
        .map(|process| inodes(&process))
        .find(|inodes| inodes.contains(&dialled))?;
    owned.iter().find_map(|inode| listeners.get(inode).copied())
}

/// Whether one of our own sockets has this address.
fn is_ours(address: SocketAddr) -> bool {
    let Ok(files) = fs::read_dir("/proc/self/fd") else {
        return false;
    };
    let numbers = files
        .flatten()
        .filter_map(|file| file.file_name().to_str()?.parse::<RawFd>().ok());
    // Whatever is no socket of that family, or closed by now, has no such address.
    let mut names = numbers.filter_map(|number| getsockname::<SockaddrIn>(number).ok());
    names.any(|name| SocketAddr::from((name.ip(), name.port())) == address)
}

/// The sockets that a process has. None of one that is not ours to look into.
fn inodes(process: &str) -> BTreeSet<u64> {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return BTreeSet::new();
    };
    let links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            inode.parse().ok()
        })
        .collect()
}

fn sockets(text: &str) -> Vec<Socket> {
    text.lines().skip(1).filter_map(socket).collect()
}

fn socket(line: &str) -> Option<Socket> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    // As it lies in memory.
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    Some(Socket {
        local: SocketAddr::from((address, u16::from_str_radix(port, 16).ok()?)),
        listens: *words.get(3)? == LISTENS,
        inode: words.get(9)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_list_of_the_system_is_understood() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0\n\
            \x20  1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0\n\
            \x20  nonsense\n";
        let sockets = sockets(text);
        assert_eq!(sockets.len(), 2);
        if cfg!(target_endian = "little") {
            assert_eq!(sockets[0].local, "127.0.0.1:8080".parse().unwrap());
        }
        assert!(sockets[0].listens && !sockets[1].listens);
        assert_eq!(sockets[1].inode, 4712);
    }

    #[test]
    fn our_own_connections_are_those_of_the_clients() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let address = stream.local_addr().unwrap();
        assert_eq!(dialler(address, &BTreeMap::new()), Some(Host::Clients));
        assert_eq!(dialler("127.0.0.1:1".parse().unwrap(), &BTreeMap::new()), None);
    }
}
