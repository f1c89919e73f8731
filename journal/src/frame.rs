//! The unit of writing: a header of 32 bytes and a body, at an offset that is a multiple of 8.
//!
//! ```text
//!  0  crc             u32   CRC-32C over segment number, offset, bytes 4.. of the header, and the body
//!  4  length          u32   length of the body
//!  8  kind            4 bytes, readable in a hex dump
//! 12  previous        u32   crc of the lasting frame before this one
//! 16  sequence        u64   position of the record; in other frames that of the last record before
//! 24  durable_before  u64   everything up to this position was durable when the frame was written
//! ```
//!
//! All numbers are little-endian. The place is part of the checksum, so a frame that turns up at another place (a
//! misdirected write, a copy inside a payload, another segment's bytes) is not valid there. `previous` chains the
//! frames, so bytes of a life that was cut do not continue the present one.

use crate::sequence::Sequence;

pub(crate) const ALIGNMENT: u64 = 8;
pub(crate) const HEADER_BYTES: usize = 32;

/// A truncation begins its body with the last position it keeps, a release with the first one it keeps.
const POSITION_BYTES: usize = 8;

/// The longest body that is not a payload of the same length: a truncation's.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + POSITION_BYTES;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameKind {
    /// The first frame of a segment: after which record it goes on.
    Begin,
    /// A record.
    Record,
    /// All records after a position cease to exist, and its payload is the record that follows.
    Truncation,
    /// Segments whose records all precede a position may be missing from now on.
    Release,
    /// The present end. Unlike the others it does not last: the next frame is written over it.
    Seal,
}

impl FrameKind {
    const ALL: [FrameKind; 5] = [
        FrameKind::Begin,
        FrameKind::Record,
        FrameKind::Truncation,
        FrameKind::Release,
        FrameKind::Seal,
    ];

    fn tag(self) -> [u8; 4] {
        match self {
            FrameKind::Begin => *b"BEGN",
            FrameKind::Record => *b"RECD",
            FrameKind::Truncation => *b"TRNC",
            FrameKind::Release => *b"RLSE",
            FrameKind::Seal => *b"SEAL",
        }
    }

    fn from_tag(tag: [u8; 4]) -> Option<FrameKind> {
        FrameKind::ALL.into_iter().find(|kind| kind.tag() == tag)
    }

    /// Whether a frame of this kind takes a position of its own.
    pub(crate) fn is_record(self) -> bool {
        matches!(self, FrameKind::Record | FrameKind::Truncation)
    }

    fn allows_body_of(self, length: usize) -> bool {
        match self {
            FrameKind::Begin | FrameKind::Seal => length == 0,
            FrameKind::Record => true,
            FrameKind::Truncation => length >= POSITION_BYTES,
            FrameKind::Release => length == POSITION_BYTES,
        }
    }
}

/// Where a frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// What a frame is to say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'a> {
    Begin,
    Record { payload: &'a [u8] },
    Truncation { after: Sequence, payload: &'a [u8] },
    Release { before: Sequence },
    Seal,
}

impl<'a> Content<'a> {
    fn kind(&self) -> FrameKind {
        match self {
            Content::Begin => FrameKind::Begin,
            Content::Record { .. } => FrameKind::Record,
            Content::Truncation { .. } => FrameKind::Truncation,
            Content::Release { .. } => FrameKind::Release,
            Content::Seal => FrameKind::Seal,
        }
    }

    fn position(&self) -> Option<Sequence> {
        match *self {
            Content::Truncation { after, .. } => Some(after),
            Content::Release { before } => Some(before),
            Content::Begin | Content::Record { .. } | Content::Seal => None,
        }
    }

    fn payload(&self) -> &'a [u8] {
        match *self {
            Content::Record { payload } | Content::Truncation { payload, .. } => payload,
            Content::Begin | Content::Release { .. } | Content::Seal => &[],
        }
    }

    fn body_bytes(&self) -> usize {
        self.position().map_or(0, |_| POSITION_BYTES) + self.payload().len()
    }

    /// How much of the segment the frame takes.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.body_bytes())
    }
}

/// Appends a frame to `buffer` and returns its checksum, which the next lasting frame names as `previous`.
pub(crate) fn encode(
    buffer: &mut Vec<u8>,
    place: Place,
    previous: u32,
    sequence: Sequence,
    durable_before: Sequence,
    content: Content<'_>,
) -> u32 {
    let start = buffer.len();
    let length = u32::try_from(content.body_bytes()).unwrap_or(u32::MAX);
    assert_eq!(
        length as usize,
        content.body_bytes(),
        "a body fits a segment, and a segment 1 GiB"
    );
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&content.kind().tag());
    buffer.extend_from_slice(&previous.to_le_bytes());
    buffer.extend_from_slice(&sequence.get().to_le_bytes());
    buffer.extend_from_slice(&durable_before.get().to_le_bytes());
    if let Some(position) = content.position() {
        buffer.extend_from_slice(&position.get().to_le_bytes());
    }
    buffer.extend_from_slice(content.payload());
    let crc = checksum(place, &buffer[start + 4..]);
    buffer[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    buffer.resize(start + content.frame_bytes() as usize, 0);
    crc
}

/// A valid frame, borrowed from the bytes of its segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) crc: u32,
    pub(crate) previous: u32,
    pub(crate) sequence: Sequence,
    pub(crate) durable_before: Sequence,
    body: &'a [u8],
}

/// The header of a frame that is not known to be valid.
pub(crate) struct Claims {
    pub(crate) kind: Option<FrameKind>,
    pub(crate) body_bytes: u64,
    pub(crate) sequence: Sequence,
    pub(crate) durable_before: Sequence,
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`, which stand at `place`; nothing if there is no valid one.
    pub(crate) fn decode(bytes: &'a [u8], place: Place) -> Option<Frame<'a>> {
        let header = bytes.get(..HEADER_BYTES)?;
        let kind = FrameKind::from_tag([header[8], header[9], header[10], header[11]])?;
        let length = u32_at(header, 4) as usize;
        let body = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(length)?)?;
        let crc = u32_at(header, 0);
        if !kind.allows_body_of(length) || crc != checksum(place, &bytes[4..HEADER_BYTES + length]) {
            return None;
        }
        Some(Frame {
            kind,
            crc,
            previous: u32_at(header, 12),
            sequence: Sequence::new(u64_at(header, 16)),
            durable_before: Sequence::new(u64_at(header, 24)),
            body,
        })
    }

    /// What the bytes say if they are read as a frame, valid or not; for human eyes only.
    pub(crate) fn claims(bytes: &[u8]) -> Option<Claims> {
        let header = bytes.get(..HEADER_BYTES)?;
        Some(Claims {
            kind: FrameKind::from_tag([header[8], header[9], header[10], header[11]]),
            body_bytes: u64::from(u32_at(header, 4)),
            sequence: Sequence::new(u64_at(header, 16)),
            durable_before: Sequence::new(u64_at(header, 24)),
        })
    }

    /// How much of the segment the frame takes.
    pub(crate) fn bytes(&self) -> u64 {
        frame_bytes(self.body.len())
    }

    /// The position that a truncation or a release names.
    pub(crate) fn position(&self) -> Option<Sequence> {
        match self.kind {
            FrameKind::Truncation | FrameKind::Release => Some(Sequence::new(u64_at(self.body, 0))),
            FrameKind::Begin | FrameKind::Record | FrameKind::Seal => None,
        }
    }

    /// What the owner of the journal appended; empty in frames that are no records.
    pub(crate) fn payload(&self) -> &'a [u8] {
        match self.kind {
            FrameKind::Record => self.body,
            FrameKind::Truncation => &self.body[POSITION_BYTES..],
            FrameKind::Begin | FrameKind::Release | FrameKind::Seal => &[],
        }
    }
}

/// How much of a segment a frame with such a body takes: the next frame begins at a multiple of 8.
fn frame_bytes(body: usize) -> u64 {
    ((HEADER_BYTES + body) as u64).next_multiple_of(ALIGNMENT)
}

fn checksum(place: Place, header_and_body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&place.segment.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &place.offset.to_le_bytes());
    crc32c::crc32c_append(crc, header_and_body)
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        segment: 3,
        offset: 640,
    };

    fn encoded(content: Content<'_>) -> Vec<u8> {
        let mut buffer = Vec::new();
        encode(
            &mut buffer,
            PLACE,
            7,
            Sequence::new(12),
            Sequence::new(9),
            content,
        );
        buffer
    }

    #[test]
    fn a_frame_reads_back_what_was_written() {
        let bytes = encoded(Content::Truncation {
            after: Sequence::new(5),
            payload: b"vote",
        });
        assert_eq!(
            bytes.len(),
            48,
            "32 of header, 8 of position, 4 of payload, aligned to 8"
        );
        let frame = Frame::decode(&bytes, PLACE).unwrap();
        assert_eq!(frame.kind, FrameKind::Truncation);
        assert_eq!(
            (frame.sequence.get(), frame.durable_before.get(), frame.previous),
            (12, 9, 7)
        );
        assert_eq!(
            (frame.position(), frame.payload()),
            (Some(Sequence::new(5)), b"vote".as_slice())
        );
        assert_eq!(frame.bytes(), 48);
    }

    #[test]
    fn a_frame_is_valid_at_its_own_place_only() {
        let bytes = encoded(Content::Record { payload: b"a" });
        assert!(Frame::decode(&bytes, PLACE).is_some());
        assert!(Frame::decode(&bytes, Place { segment: 4, ..PLACE }).is_none());
        assert!(Frame::decode(&bytes, Place { offset: 648, ..PLACE }).is_none());
    }

    #[test]
    fn every_flipped_bit_of_header_and_body_is_noticed() {
        let bytes = encoded(Content::Record { payload: b"eight by" });
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&damaged, PLACE).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn no_frame_is_shorter_than_a_seal() {
        // The next frame has to cover the seal it is written over.
        let empty = Content::Record { payload: b"" };
        assert_eq!(empty.frame_bytes(), Content::Seal.frame_bytes());
    }
}
