//! Numbers and texts out of bytes of others. What lies outside the bytes reads as zero: whoever cares checks lengths.

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    at.checked_add(N).and_then(|end| bytes.get(at..end)?.try_into().ok()).unwrap_or([0; N])
}

pub(crate) fn byte(bytes: &[u8], at: usize) -> u8 {
    array::<1>(bytes, at)[0]
}

pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

/// Sixteen bytes, such as a GUID.
pub(crate) fn id(bytes: &[u8], at: usize) -> [u8; 16] {
    array(bytes, at)
}

/// A part of the bytes, as far as there is one.
pub(crate) fn part(bytes: &[u8], at: usize, len: usize) -> &[u8] {
    let start = at.min(bytes.len());
    &bytes[start..at.saturating_add(len).clamp(start, bytes.len())]
}

/// A text in a field of fixed length: it ends at a zero, and spaces behind it do not count.
pub(crate) fn text(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).trim_end().to_string()
}

/// A UUID in its usual form; none where all is zero.
pub(crate) fn uuid(bytes: [u8; 16]) -> String {
    if bytes == [0; 16] {
        return String::new();
    }
    let groups = [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]];
    let hex = |group: &[u8]| group.iter().map(|b| format!("{b:02x}")).collect::<String>();
    groups.map(hex).join("-")
}
