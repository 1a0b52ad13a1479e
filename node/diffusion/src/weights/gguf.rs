//! The header of a GGUF file.
//!
//! Owns the reading of names, shapes, types and places of its tensors. Every count and length comes
//! from outside and is checked before anything is reserved for it.
//!
//! Source: ggml `docs/gguf.md`, versions 2 and 3.

use super::encoding::Encoding;

/// Tensors and values of metadata at most, each; more is not a model but noise.
const COUNT_MAX: u64 = 1 << 16;
const ALIGNMENT_DEFAULT: u64 = 32;
/// What GGUF calls types of metadata.
const TYPE_STRING: u32 = 8;
const TYPE_ARRAY: u32 = 9;

/// One tensor of the file.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) name: String,
    pub(crate) encoding: Encoding,
    /// Outermost axis first, as everywhere but in GGUF.
    pub(crate) shape: Vec<usize>,
    /// Where it begins in the file.
    pub(crate) start: usize,
}

/// Whether a file calls itself GGUF.
pub(crate) fn is_gguf(file: &[u8]) -> bool {
    file.starts_with(b"GGUF")
}

/// Reads the header; the text of the error says what is wrong.
pub(crate) fn read(file: &[u8]) -> Result<Vec<Info>, String> {
    let mut reader = Reader { file, at: 4 };
    let version = reader.u32()?;
    if !(2..=3).contains(&version) {
        return Err(format!("GGUF version {version}, expected 2 or 3"));
    }
    let (tensors, values) = (reader.count("tensors")?, reader.count("values of metadata")?);
    let mut alignment = ALIGNMENT_DEFAULT;
    for _ in 0..values {
        let key = reader.string()?;
        let kind = reader.u32()?;
        if key == "general.alignment" && kind == 4 {
            alignment = u64::from(reader.u32()?);
        } else {
            reader.skip_value(kind)?;
        }
    }
    if !alignment.is_power_of_two() {
        return Err(format!("general.alignment is {alignment}, expected a power of two"));
    }
    let mut found = Vec::new();
    for _ in 0..tensors {
        found.push(reader.info()?);
    }
    let body = (reader.at as u64).next_multiple_of(alignment);
    found.into_iter().map(|(info, offset)| place(info, body.checked_add(offset))).collect()
}

fn place(mut info: Info, start: Option<u64>) -> Result<Info, String> {
    let start = start.and_then(|start| usize::try_from(start).ok());
    info.start = start.ok_or_else(|| format!("{} lies beyond every file", info.name))?;
    Ok(info)
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.file.len());
        let end = end.ok_or_else(|| "the header is cut off".to_owned())?;
        let taken = &self.file[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four were taken")))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight were taken")))
    }

    fn count(&mut self, what: &str) -> Result<u64, String> {
        match self.u64()? {
            count if count <= COUNT_MAX => Ok(count),
            count => Err(format!("{count} {what}, expected at most {COUNT_MAX}")),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let length = usize::try_from(self.u64()?).map_err(|_| "the header is cut off")?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn skip_value(&mut self, kind: u32) -> Result<(), String> {
        match kind {
            TYPE_STRING => self.string().map(drop),
            TYPE_ARRAY => {
                let (kind, count) = (self.u32()?, self.u64()?);
                match width(kind) {
                    Some(width) => {
                        let bytes = usize::try_from(count).ok().and_then(|c| c.checked_mul(width));
                        self.take(bytes.ok_or("the header is cut off")?).map(drop)
                    }
                    // Each string takes eight bytes at least, so a wrong count ends at the file's end.
                    None if kind == TYPE_STRING => {
                        (0..count).try_for_each(|_| self.string().map(drop))
                    }
                    None => Err(format!("an array of type {kind}")),
                }
            }
            other => {
                let width = width(other).ok_or_else(|| format!("metadata of type {other}"))?;
                self.take(width).map(drop)
            }
        }
    }

    /// One tensor, and its distance from the first one.
    fn info(&mut self) -> Result<(Info, u64), String> {
        let name = self.string()?;
        let rank = self.u32()?;
        if rank > 4 {
            return Err(format!("{name} has {rank} axes, expected at most 4"));
        }
        let mut shape = Vec::new();
        for _ in 0..rank {
            shape.push(usize::try_from(self.u64()?).map_err(|_| "an axis is too long")?);
        }
        shape.reverse();
        let encoding = encoding(self.u32()?);
        let offset = self.u64()?;
        let row = shape.last().copied().unwrap_or(1);
        if let Some((values, _)) = encoding.block().filter(|(values, _)| row % values != 0) {
            return Err(format!(
                "{name} has rows of {row} values, expected a multiple of {values}"
            ));
        }
        Ok((Info { name, encoding, shape, start: 0 }, offset))
    }
}

/// Bytes of a plain value of metadata.
fn width(kind: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn encoding(kind: u32) -> Encoding {
    match kind {
        0 => Encoding::F32,
        1 => Encoding::F16,
        2 => Encoding::Q4_0,
        8 => Encoding::Q8_0,
        30 => Encoding::Bf16,
        other => {
            let known = [
                "Q4_1", "", "", "Q5_0", "Q5_1", "", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
            ];
            let name = (other as usize).checked_sub(3).and_then(|i| known.get(i));
            let name = name.filter(|name| !name.is_empty());
            Encoding::Other(name.map_or_else(|| format!("GGUF type {other}"), |n| (*n).to_owned()))
        }
    }
}
