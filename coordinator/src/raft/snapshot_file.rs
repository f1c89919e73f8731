//! The file of one snapshot.
//!
//! | Part | Contents |
//! |---|---|
//! | 16 bytes | magic, format version |
//! | chunk | the header: the cluster, and the state that the entries are of ([`AppliedState`]) |
//! | chunks | entries of the table, in the order of their keys |
//! | chunk | the trailer: how many entries there are, and a checksum over the checksums of all chunks |
//!
//! A chunk is its kind, its length and a CRC-32C over all of it, then the payload. The file ends with the trailer.
//! So a file is either whole, in the order it was written, or refused.

use std::io;
use std::sync::Arc;

use prost::Message as _;
use unanimo_core::ClusterId;
use unanimo_journal::DiskFile;
use unanimo_proto::internal as wire;

use super::applied_state::AppliedState;

const MAGIC: [u8; 8] = *b"UNANSNAP";
const VERSION: u32 = 1;
const PREAMBLE_BYTES: u64 = 16;
const CHUNK_HEAD_BYTES: usize = 16;
/// A chunk is written when it has reached this size: large enough for few writes, small enough for little memory.
const CHUNK_BYTES: usize = 256 * 1024;
/// No chunk is larger; one entry of a table is at most 65 KiB.
const MAX_CHUNK_BYTES: usize = CHUNK_BYTES + 128 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Header = 1,
    Entries = 2,
    Trailer = 3,
}

/// A key of the table and its value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);

/// Writes a snapshot from front to back.
pub(super) struct SnapshotWriter {
    file: Arc<dyn DiskFile>,
    offset: u64,
    pending: Vec<u8>,
    pairs: u64,
    /// The checksum of the checksums up to here.
    chain: u32,
}

impl SnapshotWriter {
    /// Begins a snapshot of this state in an empty file.
    pub(super) fn begin(
        file: Arc<dyn DiskFile>,
        cluster: &ClusterId,
        state: &AppliedState,
    ) -> io::Result<Self> {
        let mut preamble = Vec::with_capacity(16);
        preamble.extend_from_slice(&MAGIC);
        preamble.extend_from_slice(&VERSION.to_le_bytes());
        preamble.extend_from_slice(&[0; 4]);
        file.write_at(&preamble, 0)?;
        let mut writer = Self {
            file,
            offset: PREAMBLE_BYTES,
            pending: Vec::new(),
            pairs: 0,
            chain: 0,
        };
        let header = wire::SnapshotHeader {
            cluster: cluster.to_string(),
            state: Some(state.to_wire()),
        };
        writer.write_chunk(Kind::Header, &header.encode_to_vec())?;
        Ok(writer)
    }

    /// Adds the next entry.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        for part in [key, value] {
            let length = u32::try_from(part.len()).map_err(io::Error::other)?;
            self.pending.extend_from_slice(&length.to_le_bytes());
            self.pending.extend_from_slice(part);
        }
        self.pairs += 1;
        if self.pending.len() >= CHUNK_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Ends the snapshot and forces it to disk. Returns the length of the file.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        let mut trailer = self.pairs.to_le_bytes().to_vec();
        trailer.extend_from_slice(&self.chain.to_le_bytes());
        self.write_chunk(Kind::Trailer, &trailer)?;
        self.file.sync_all()?;
        Ok(self.offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::take(&mut self.pending);
        if chunk.is_empty() {
            Ok(())
        } else {
            self.write_chunk(Kind::Entries, &chunk)
        }
    }

    fn write_chunk(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        assert!(
            payload.len() <= MAX_CHUNK_BYTES,
            "a chunk of {} bytes",
            payload.len()
        );
        let mut chunk = Vec::with_capacity(CHUNK_HEAD_BYTES + payload.len());
        chunk.extend_from_slice(&(kind as u32).to_le_bytes());
        chunk.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&chunk), payload);
        chunk.extend_from_slice(&checksum.to_le_bytes());
        chunk.extend_from_slice(payload);
        self.file.write_at(&chunk, self.offset)?;
        self.offset += chunk.len() as u64;
        self.chain = crc32c::crc32c_append(self.chain, &checksum.to_le_bytes());
        Ok(())
    }
}

/// Reads a snapshot from front to back, and checks it on the way.
pub(super) struct SnapshotReader {
    chunks: Chunks,
    cluster: ClusterId,
    state: AppliedState,
    pairs: u64,
    finished: bool,
}

fn damaged(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

impl SnapshotReader {
    /// Begins to read. What is not a snapshot is refused as `InvalidData`, here and later.
    pub(super) fn open(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let mut chunks = Chunks::open(file)?;
        let (kind, payload) = chunks.next()?;
        if kind != Kind::Header as u32 {
            return Err(damaged("it does not begin with a header"));
        }
        let wrong = |error: &dyn std::fmt::Display| damaged(error.to_string());
        let header = wire::SnapshotHeader::decode(payload.as_slice()).map_err(|error| wrong(&error))?;
        let state = header.state.ok_or_else(|| damaged("its header has no state"))?;
        Ok(Self {
            chunks,
            cluster: ClusterId::new(&header.cluster).map_err(|error| wrong(&error))?,
            state: AppliedState::from_wire(state).map_err(|error| wrong(&error))?,
            pairs: 0,
            finished: false,
        })
    }

    /// The next entries, or none at the end of a whole snapshot.
    pub(super) fn next_pairs(&mut self) -> io::Result<Option<Vec<Pair>>> {
        if self.finished {
            return Ok(None);
        }
        let chain = self.chunks.chain;
        let (kind, payload) = self.chunks.next()?;
        if kind == Kind::Entries as u32 {
            let pairs = split(&payload)?;
            self.pairs += pairs.len() as u64;
            return Ok(Some(pairs));
        }
        let mut trailer = self.pairs.to_le_bytes().to_vec();
        trailer.extend_from_slice(&chain.to_le_bytes());
        let Chunks { offset, length, .. } = self.chunks;
        if kind != Kind::Trailer as u32 || payload != trailer {
            return Err(damaged(format!("a chunk is out of place before byte {offset}")));
        }
        if offset != length {
            return Err(damaged(format!("it goes on after its end at byte {offset}")));
        }
        self.finished = true;
        Ok(None)
    }

    /// Reads to the end, to know that all of it is whole.
    pub(super) fn verify(mut self) -> io::Result<(ClusterId, AppliedState)> {
        while self.next_pairs()?.is_some() {}
        Ok((self.cluster, self.state))
    }
}

/// The chunks of a file.
struct Chunks {
    file: Arc<dyn DiskFile>,
    length: u64,
    offset: u64,
    /// The checksum of the checksums up to here.
    chain: u32,
}

impl Chunks {
    fn open(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let length = file.length()?;
        if length < PREAMBLE_BYTES {
            return Err(damaged("it is too short to be a snapshot"));
        }
        let mut preamble = [0; PREAMBLE_BYTES as usize];
        file.read_at(&mut preamble, 0)?;
        if preamble[..8] != MAGIC {
            return Err(damaged("it is not a snapshot"));
        }
        if preamble[8..12] != VERSION.to_le_bytes() || preamble[12..] != [0; 4] {
            return Err(damaged("its format is of another version"));
        }
        Ok(Self {
            file,
            length,
            offset: PREAMBLE_BYTES,
            chain: 0,
        })
    }

    /// The kind and the payload of the next chunk.
    fn next(&mut self) -> io::Result<(u32, Vec<u8>)> {
        if self.length - self.offset < CHUNK_HEAD_BYTES as u64 {
            return Err(damaged(format!(
                "it ends at byte {}, without a trailer",
                self.length
            )));
        }
        let mut head = [0; CHUNK_HEAD_BYTES];
        self.file.read_at(&mut head, self.offset)?;
        let [k0, k1, k2, k3, l0, l1, l2, l3, l4, l5, l6, l7, c0, c1, c2, c3] = head;
        let kind = u32::from_le_bytes([k0, k1, k2, k3]);
        let length = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
        let checksum = u32::from_le_bytes([c0, c1, c2, c3]);
        let begin = self.offset + CHUNK_HEAD_BYTES as u64;
        let wrong = || {
            damaged(format!(
                "the chunk at byte {} is damaged",
                begin - CHUNK_HEAD_BYTES as u64
            ))
        };
        if length > MAX_CHUNK_BYTES as u64 || length > self.length - begin {
            return Err(wrong());
        }
        let mut payload = vec![0; usize::try_from(length).map_err(|_| wrong())?];
        self.file.read_at(&mut payload, begin)?;
        if crc32c::crc32c_append(crc32c::crc32c(&head[..12]), &payload) != checksum {
            return Err(wrong());
        }
        self.offset = begin + length;
        self.chain = crc32c::crc32c_append(self.chain, &checksum.to_le_bytes());
        Ok((kind, payload))
    }
}

/// Takes the entries of a chunk apart.
fn split(mut payload: &[u8]) -> io::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    while !payload.is_empty() {
        let key = take(&mut payload)?;
        let value = take(&mut payload)?;
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn take(payload: &mut &[u8]) -> io::Result<Vec<u8>> {
    let wrong = || damaged("an entry is cut short");
    let (length, rest) = payload.split_first_chunk::<4>().ok_or_else(wrong)?;
    let (part, rest) = rest
        .split_at_checked(u32::from_le_bytes(*length) as usize)
        .ok_or_else(wrong)?;
    *payload = rest;
    Ok(part.to_vec())
}
