//! Reads the messages of Envoy's API. A field that no code asks for is a reason to refuse the
//! resource, so that nothing that the server wants is left out silently.

use std::time::Duration;

use crate::grpc::protobuf::{Fields, Value, unpacked};

/// The title of a message, and its fields as `NUMBER NAME NUMBER NAME ...`.
#[derive(Debug)]
pub(super) struct Schema(pub &'static str, pub &'static str);

impl Schema {
    fn name(&self, number: u64) -> String {
        let mut words = self.1.split_whitespace();
        while let (Some(known), Some(name)) = (words.next(), words.next()) {
            if known.parse() == Ok(number) {
                return name.to_owned();
            }
        }
        format!("field {number}")
    }
}

/// A message of a schema.
pub(super) struct Message<'a> {
    schema: &'static Schema,
    /// The fields that no code has asked for so far.
    fields: Vec<(u64, Value<'a>)>,
}

/// A sentence about a message.
pub(super) type Reason = String;

impl<'a> Message<'a> {
    /// Reads `bytes`.
    ///
    /// # Errors
    /// If they are no message of protobuf.
    pub(super) fn read(bytes: &'a [u8], schema: &'static Schema) -> Result<Self, Reason> {
        let fields: Result<Vec<_>, _> = Fields::of(bytes).take(FIELDS_MAX + 1).collect();
        let garbage = |_| format!("{}: these bytes are no such message", schema.0);
        let fields = fields.map_err(garbage)?;
        if fields.len() > FIELDS_MAX {
            return Err(format!("{}: more than {FIELDS_MAX} fields", schema.0));
        }
        Ok(Self { schema, fields })
    }

    /// A sentence about the field `number`.
    pub(super) fn about(&self, number: u64, what: &str) -> Reason {
        format!("{}.{} {what}", self.schema.0, self.schema.name(number))
    }

    fn take(&mut self, number: u64) -> Option<Value<'a>> {
        // A repeated scalar field counts with its last value.
        let at = self.fields.iter().rposition(|(known, _)| *known == number)?;
        let value = self.fields.remove(at).1;
        self.fields.retain(|(known, _)| *known != number);
        Some(value)
    }

    fn malformed(&self, number: u64) -> Reason {
        self.about(number, "has another type than in Envoy's API")
    }

    /// Whether the field is there.
    pub(super) fn has(&self, number: u64) -> bool {
        self.fields.iter().any(|(known, _)| *known == number)
    }

    /// Whether the field is there with an empty text.
    pub(super) fn is_empty_text(&self, number: u64) -> bool {
        let last = self.fields.iter().rev().find(|(known, _)| *known == number);
        matches!(last, Some((_, Value::Bytes([]))))
    }

    /// A number. A missing one is 0.
    pub(super) fn number(&mut self, number: u64) -> Result<u64, Reason> {
        match self.take(number) {
            None => Ok(0),
            Some(Value::Number(value)) => Ok(value),
            Some(_) => Err(self.malformed(number)),
        }
    }

    /// A flag. A missing one is false.
    pub(super) fn flag(&mut self, number: u64) -> Result<bool, Reason> {
        self.number(number).map(|value| value != 0)
    }

    /// A `double`.
    fn double(&mut self, number: u64) -> Result<f64, Reason> {
        match self.take(number) {
            None => Ok(0.0),
            Some(Value::Fixed64(value)) => Ok(f64::from_bits(value)),
            Some(_) => Err(self.malformed(number)),
        }
    }

    /// Bytes or the bytes of a message.
    pub(super) fn bytes(&mut self, number: u64) -> Result<Option<&'a [u8]>, Reason> {
        match self.take(number) {
            None => Ok(None),
            Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(self.malformed(number)),
        }
    }

    /// A text. A missing one is empty.
    pub(super) fn text(&mut self, number: u64) -> Result<&'a str, Reason> {
        let bytes = self.bytes(number)?.unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| self.about(number, "is no text"))
    }

    /// A text with at least one character.
    pub(super) fn required_text(&mut self, number: u64) -> Result<&'a str, Reason> {
        match self.text(number)? {
            "" => Err(self.about(number, "is empty")),
            text => Ok(text),
        }
    }

    /// All values of a repeated field of texts, messages or bytes.
    pub(super) fn all(&mut self, number: u64) -> Result<Vec<&'a [u8]>, Reason> {
        self.each(number, |value, found| match value {
            Value::Bytes(bytes) => {
                found.push(*bytes);
                true
            }
            _ => false,
        })
    }

    /// Takes all values of a repeated field. `add` returns false for one of another type.
    fn each<T>(
        &mut self,
        number: u64,
        add: impl Fn(&Value<'a>, &mut Vec<T>) -> bool,
    ) -> Result<Vec<T>, Reason> {
        let mut found = Vec::new();
        let mut is_wrong = false;
        self.fields.retain(|(known, value)| {
            if *known != number {
                return true;
            }
            is_wrong |= !add(value, &mut found);
            false
        });
        if is_wrong { Err(self.malformed(number)) } else { Ok(found) }
    }

    /// All texts of a repeated field.
    pub(super) fn texts(&mut self, number: u64) -> Result<Vec<&'a str>, Reason> {
        let all = self.all(number)?;
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| self.about(number, "is no text"));
        all.into_iter().map(text).collect()
    }

    /// All numbers of a repeated field, packed or not.
    pub(super) fn numbers(&mut self, number: u64) -> Result<Vec<u64>, Reason> {
        self.each(number, |value, found| match value {
            Value::Number(value) => {
                found.push(*value);
                true
            }
            Value::Bytes(packed) => unpacked(packed).map(|all| found.extend(all)).is_ok(),
            _ => false,
        })
    }

    /// The message in a field.
    pub(super) fn message(
        &mut self,
        number: u64,
        schema: &'static Schema,
    ) -> Result<Option<Self>, Reason> {
        self.bytes(number)?.map(|bytes| Self::read(bytes, schema)).transpose()
    }

    /// The messages in a repeated field.
    pub(super) fn messages(
        &mut self,
        number: u64,
        schema: &'static Schema,
    ) -> Result<Vec<Self>, Reason> {
        self.all(number)?.into_iter().map(|bytes| Self::read(bytes, schema)).collect()
    }

    /// The number in a wrapper such as `UInt32Value` or `BoolValue`.
    pub(super) fn wrapped(&mut self, number: u64) -> Result<Option<u64>, Reason> {
        Ok(match self.message(number, &WRAPPER)? {
            Some(mut wrapper) => Some(wrapper.number(1)?),
            None => None,
        })
    }

    /// The number in a `UInt32Value`.
    pub(super) fn wrapped_u32(&mut self, number: u64) -> Result<Option<u32>, Reason> {
        let value = self.wrapped(number)?;
        value
            .map(|value| u32::try_from(value).map_err(|_| self.about(number, "is too large")))
            .transpose()
    }

    /// The number in a `Percent` or a `DoubleValue`.
    pub(super) fn percent(&mut self, number: u64) -> Result<Option<f64>, Reason> {
        let Some(mut percent) = self.message(number, &WRAPPER)? else { return Ok(None) };
        let value = percent.double(1)?;
        match value.is_finite() && value >= 0.0 {
            true => Ok(Some(value)),
            false => Err(self.about(number, "is not a number from 0 on")),
        }
    }

    /// A `Duration`.
    pub(super) fn duration(&mut self, number: u64) -> Result<Option<Duration>, Reason> {
        let Some(mut written) = self.message(number, &DURATION)? else { return Ok(None) };
        let (seconds, nanos) = (written.number(1)?, written.number(2)?);
        let fits = seconds <= DURATION_S_MAX && nanos < 1_000_000_000;
        match fits {
            true => Ok(Some(Duration::new(seconds, nanos as u32))),
            false => Err(self.about(number, "is not a duration from 0 s on")),
        }
    }

    /// A `Duration` that is the pause between two actions, or the limit of one.
    pub(super) fn pause(&mut self, number: u64) -> Result<Option<Duration>, Reason> {
        let pause = self.duration(number)?;
        match pause.is_some_and(|pause| pause < PAUSE_MIN) {
            true => Err(self.about(number, &format!("is below {PAUSE_MIN:?}"))),
            false => Ok(pause),
        }
    }

    /// The type and the bytes of an `Any`.
    pub(super) fn any(&mut self, number: u64) -> Result<Option<(&'a str, &'a [u8])>, Reason> {
        let Some(mut any) = self.message(number, &ANY)? else { return Ok(None) };
        Ok(Some((any.text(1)?, any.bytes(2)?.unwrap_or_default())))
    }

    /// Accepts these fields, because they do not change how requests are served.
    pub(super) fn ignore(&mut self, numbers: &[u64]) {
        self.fields.retain(|(known, _)| !numbers.contains(known));
    }

    /// Accepts these wrapped flags and scalars if they are false or 0.
    pub(super) fn off(&mut self, numbers: &[u64]) -> Result<(), Reason> {
        for number in numbers {
            let is_off = match self.take(*number) {
                None | Some(Value::Number(0)) => true,
                Some(Value::Bytes(bytes)) => Message::read(bytes, &WRAPPER)?.number(1)? == 0,
                Some(_) => false,
            };
            if !is_off {
                return Err(self.unsupported(*number));
            }
        }
        Ok(())
    }

    /// A field that this proxy lacks.
    pub(super) fn unsupported(&self, number: u64) -> Reason {
        self.about(number, "is not supported here; leave it out")
    }

    /// Refuses the fields that no code has asked for.
    pub(super) fn finish(self) -> Result<(), Reason> {
        match self.fields.first() {
            Some((number, _)) => Err(self.unsupported(*number)),
            None => Ok(()),
        }
    }
}

const WRAPPER: Schema = Schema("wrapper", "1 value");
const DURATION: Schema = Schema("duration", "1 seconds 2 nanos");
const ANY: Schema = Schema("any", "1 type_url 2 value");

/// The maximum number of fields of a message. A field takes two bytes or more of a resource, and 32
/// of the memory.
const FIELDS_MAX: usize = 200_000;

/// Shorter pauses would keep the processor busy.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longer durations are the negative ones of the encoding, and nonsense.
const DURATION_S_MAX: u64 = 315_576_000_000;

/// The message in an `Any`, if it has the type `url`.
pub(super) fn any_of(bytes: &[u8]) -> Result<(&str, &[u8]), Reason> {
    let mut any = Message::read(bytes, &ANY)?;
    Ok((any.text(1)?, any.bytes(2)?.unwrap_or_default()))
}
