//! The encoding of protobuf, for the few messages that the proxy sends and reads itself.

/// The wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// The bytes are no such message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The key of a field whose number is below 16.
pub fn key(field: u8, wire: u64) -> u8 {
    field << 3 | wire as u8
}

/// Writes a number without its key.
pub fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Writes a number. A field with its default value is left out.
pub fn put_number(out: &mut Vec<u8>, field: u8, n: u64) {
    if n != 0 {
        out.push(key(field, VARINT));
        put_varint(out, n);
    }
}

/// Writes a number of eight bytes.
pub fn put_fixed64(out: &mut Vec<u8>, field: u8, n: u64) {
    out.push(key(field, FIXED64));
    out.extend_from_slice(&n.to_le_bytes());
}

/// Writes bytes or text. A field with its default value is left out.
pub fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(key(field, BYTES));
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// Writes a message in a field. Its length is known after it, so it moves behind the length then.
pub fn put_nested(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(key(field, BYTES));
    let start = out.len();
    write(out);
    let end = out.len();
    put_varint(out, (end - start) as u64);
    let digits = out.len() - end;
    out[start..].rotate_right(digits);
}

/// The value of a field.
pub enum Value<'a> {
    /// A number.
    Number(u64),
    /// Bytes, text, or a message.
    Bytes(&'a [u8]),
    /// A number of eight bytes.
    Fixed64(u64),
    /// A number of four bytes.
    Fixed32(u32),
}

/// The fields of a message: their numbers and values.
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields of `message`.
    pub fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let key = self.varint()?;
        let value = match key & 7 {
            VARINT => Value::Number(self.varint()?),
            FIXED64 => Value::Fixed64(u64::from_le_bytes(self.fixed()?)),
            BYTES => {
                let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                Value::Bytes(self.take(len)?)
            }
            FIXED32 => Value::Fixed32(u32::from_le_bytes(self.fixed()?)),
            _ => return Err(Malformed),
        };
        if key >> 3 == 0 { Err(Malformed) } else { Ok((key >> 3, value)) }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            if shift == 63 && byte > 1 {
                return Err(Malformed);
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// The numbers of a packed field.
///
/// # Errors
/// If they are no such numbers.
pub fn unpacked(mut packed: &[u8]) -> Result<Vec<u64>, Malformed> {
    let mut numbers = Vec::new();
    while !packed.is_empty() {
        let mut fields = Fields(packed);
        numbers.push(fields.varint()?);
        packed = fields.0;
    }
    Ok(numbers)
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}
