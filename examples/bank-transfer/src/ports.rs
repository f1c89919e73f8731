//! Ports that nobody else takes.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use rand::Rng as _;
use thiserror::Error;

/// Where blocks of ports begin and end: below the ports that systems hand out by themselves, so that none of them is
/// taken while its process is being restarted.
const FIRST: u16 = 20_000;
const BEYOND: u16 = 30_000;
/// Ports in a block. The first one is the claim on the others.
const BLOCK: u16 = 10;
/// Blocks that are tried.
const ATTEMPTS: usize = 200;

/// A few ports of the loopback interface. Another run of this program does not take them while this value lives,
/// because it holds the block's first port open.
#[derive(Debug)]
pub(crate) struct Ports {
    _claim: TcpListener,
    first: u16,
}

/// No ports could be had.
#[derive(Debug, Error)]
#[error("no block of {BLOCK} free ports was found between {FIRST} and {BEYOND} on 127.0.0.1: {source}")]
pub struct NoPorts {
    source: io::Error,
}

impl Ports {
    /// How many ports a block has to give.
    pub(crate) const COUNT: u16 = BLOCK - 1;

    /// Claims a block.
    pub(crate) fn claim() -> Result<Self, NoPorts> {
        let mut random = rand::rng();
        let mut failed = io::Error::other("nothing was tried");
        for _ in 0..ATTEMPTS {
            let block = random.random_range(0..(BEYOND - FIRST) / BLOCK);
            match Self::claim_block(FIRST + block * BLOCK) {
                Ok(ports) => return Ok(ports),
                Err(source) => failed = source,
            }
        }
        Err(NoPorts { source: failed })
    }

    fn claim_block(first: u16) -> io::Result<Self> {
        let claim = bind(first)?;
        for port in 1..BLOCK {
            // Bound and let go at once: whoever else wants it for longer is no run of this program.
            drop(bind(first + port)?);
        }
        Ok(Self { _claim: claim, first })
    }

    /// One of the ports as an address.
    pub(crate) fn address(&self, place: u16) -> String {
        assert!(place < Self::COUNT, "a block has {} ports to give", Self::COUNT);
        format!("127.0.0.1:{}", self.first + 1 + place)
    }
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_claimed_by_one_at_a_time() {
        let ports = Ports::claim().unwrap();
        assert!(Ports::claim_block(ports.first).is_err());
        let first = ports.first;
        let taken = bind(first + 3).unwrap();
        drop(ports);
        assert!(Ports::claim_block(first).is_err(), "one of its ports is in use");
        drop(taken);
        assert!(Ports::claim_block(first).is_ok());
    }

    #[test]
    fn the_ports_are_those_behind_the_claim() {
        let ports = Ports::claim().unwrap();
        assert_eq!(ports.address(0), format!("127.0.0.1:{}", ports.first + 1));
        assert_eq!(ports.address(8), format!("127.0.0.1:{}", ports.first + 9));
    }
}
