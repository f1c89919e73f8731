//! A snapshot as a stream of messages.

use std::sync::Arc;

use futures::stream::{Stream, unfold};
use unanimo_core::ClusterId;
use unanimo_proto::internal as wire;
use wire::snapshot_piece::{Header, Piece};

use super::convert::{snapshot_meta_to_wire, vote_to_wire};
use super::snapshot_store::SnapshotFile;
use super::type_config::{TypeConfig, Vote};
use super::{Background, background};

/// Bytes of a snapshot in one message.
const PIECE_BYTES: u64 = 1024 * 1024;

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotFile>;

struct Sending {
    header: Option<Header>,
    snapshot: Arc<SnapshotFile>,
    offset: u64,
    background: Background,
}

/// The messages that carry a snapshot: a header, then the bytes of the file. The stream is read as fast as the
/// receiver takes it. It ends early if the file cannot be read; then the receiver finds it incomplete.
pub(super) fn pieces(
    cluster: ClusterId,
    target: u64,
    vote: Vote,
    snapshot: Snapshot,
    background: Background,
) -> impl Stream<Item = wire::SnapshotPiece> + Send + 'static {
    let header = Header {
        cluster: cluster.to_string(),
        target,
        vote: Some(vote_to_wire(&vote)),
        meta: Some(snapshot_meta_to_wire(&snapshot.meta)),
    };
    let sending = Sending {
        header: Some(header),
        snapshot: Arc::new(snapshot.snapshot),
        offset: 0,
        background,
    };
    unfold(sending, next)
}

async fn next(mut sending: Sending) -> Option<(wire::SnapshotPiece, Sending)> {
    if let Some(header) = sending.header.take() {
        let piece = Some(Piece::Header(header));
        return Some((wire::SnapshotPiece { piece }, sending));
    }
    let (snapshot, offset) = (Arc::clone(&sending.snapshot), sending.offset);
    let read = background::run(sending.background, move || read_piece(&snapshot, offset)).await;
    match read.and_then(|read| read) {
        Ok(data) if data.is_empty() => None,
        Ok(data) => {
            sending.offset += data.len() as u64;
            let piece = Some(Piece::Data(data.into()));
            Some((wire::SnapshotPiece { piece }, sending))
        }
        Err(error) => {
            tracing::error!(%error, "a snapshot cannot be read to be sent");
            None
        }
    }
}

fn read_piece(snapshot: &SnapshotFile, offset: u64) -> std::io::Result<Vec<u8>> {
    let left = snapshot.file().length()?.saturating_sub(offset);
    let mut data = vec![0; usize::try_from(left.min(PIECE_BYTES)).map_err(std::io::Error::other)?];
    snapshot.file().read_at(&mut data, offset)?;
    Ok(data)
}
