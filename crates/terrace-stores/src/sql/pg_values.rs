//! Values in PostgreSQL's binary format, as each type's `send` function writes it (src/backend/utils/adt), to JSON.
//!
//! Invariant: no bytes lead to a panic, and what is not understood is an error that says how to go on.

use jiff::civil::{Date, date};
use jiff::{Span, Timestamp};

use super::json::{Cell, CellError};
use super::mysql::push_fraction;

/// How deep arrays nest in PostgreSQL (MAXDIM).
const DIMENSIONS_MAX: i32 = 6;

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's times begin.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Reads one value by the name of its type.
pub(super) fn value(kind: &str, bytes: &[u8]) -> Result<Cell, CellError> {
    let number = |text: String| Ok(Cell::Number(text));
    match kind {
        "BOOL" => Ok(Cell::Bool(bytes == [1])),
        "INT2" => number(i16::from_be_bytes(bytes.try_into()?).to_string()),
        "INT4" => number(i32::from_be_bytes(bytes.try_into()?).to_string()),
        "INT8" => number(i64::from_be_bytes(bytes.try_into()?).to_string()),
        "OID" => number(u32::from_be_bytes(bytes.try_into()?).to_string()),
        "FLOAT4" => Ok(Cell::small_float(f32::from_be_bytes(bytes.try_into()?))),
        "FLOAT8" => Ok(Cell::float(f64::from_be_bytes(bytes.try_into()?))),
        "NUMERIC" => numeric(bytes),
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "\"CHAR\"" | "UNKNOWN" | "BYTEA" | "citext" | "xml" => {
            Cell::text(bytes)
        }
        "JSON" => Ok(Cell::Json(std::str::from_utf8(bytes)?.to_owned())),
        "JSONB" => match bytes.split_first() {
            Some((1, text)) => Ok(Cell::Json(std::str::from_utf8(text)?.to_owned())),
            _ => Err("a jsonb of an unknown version".into()),
        },
        "UUID" => uuid(bytes),
        "DATE" => day(i32::from_be_bytes(bytes.try_into()?)),
        "TIMESTAMP" | "TIMESTAMPTZ" => moment(i64::from_be_bytes(bytes.try_into()?)),
        "TIME" => Ok(Cell::Text(clock(i64::from_be_bytes(bytes.try_into()?)))),
        other => Err(format!("the type {other} is not supported: cast it, as in {COLUMN_CAST}").into()),
    }
}

const COLUMN_CAST: &str = "\"name::text AS name\"";

/// Reads an array of the element type of this name.
pub(super) fn array(kind: &str, bytes: &[u8]) -> Result<Cell, CellError> {
    let mut input = Input(bytes);
    let dimensions = input.int()?;
    let (_has_null, _element) = (input.int()?, input.int()?);
    if !(0..=DIMENSIONS_MAX).contains(&dimensions) {
        return Err("an array of too many dimensions".into());
    }
    let mut lengths = Vec::new();
    for _ in 0..dimensions {
        lengths.push(input.int()?);
        let _lower_bound = input.int()?;
    }
    let mut json = String::new();
    if lengths.is_empty() {
        json.push_str("[]");
    } else {
        elements(kind, &lengths, &mut input, &mut json)?;
    }
    Ok(Cell::Json(json))
}

fn elements(kind: &str, lengths: &[i32], input: &mut Input<'_>, json: &mut String) -> Result<(), CellError> {
    let Some((&length, inner)) = lengths.split_first() else {
        let cell = match input.int()? {
            -1 => Cell::Null,
            size => value(kind, input.bytes(usize::try_from(size)?)?)?,
        };
        json.push_str(&cell.json());
        return Ok(());
    };
    json.push('[');
    for index in 0..length {
        if index > 0 {
            json.push(',');
        }
        elements(kind, inner, input, json)?;
    }
    json.push(']');
    Ok(())
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], CellError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or("a value that ends too early")?;
        self.0 = rest;
        Ok(head)
    }

    fn int(&mut self) -> Result<i32, CellError> {
        Ok(i32::from_be_bytes(self.bytes(4)?.try_into()?))
    }

    fn short(&mut self) -> Result<i16, CellError> {
        Ok(i16::from_be_bytes(self.bytes(2)?.try_into()?))
    }
}

/// Digits of base 10000 with the weight of the first one, a sign, and how many decimal digits follow the point. What
/// is no number becomes null.
fn numeric(bytes: &[u8]) -> Result<Cell, CellError> {
    let mut input = Input(bytes);
    let (count, weight) = (input.short()?, i32::from(input.short()?));
    let (sign, scale) = (input.short()? as u16, usize::try_from(input.short()?)?);
    let mut digits = Vec::new();
    for _ in 0..count {
        digits.push(input.short()?);
    }
    let negative = match sign {
        0 => false,
        0x4000 => true,
        _ => return Ok(Cell::Null),
    };
    let digit = |place: i32| {
        let index = usize::try_from(weight - place).ok();
        index.and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let mut text = String::from(if negative { "-" } else { "" });
    text.push_str(&digit(weight.max(0)).to_string());
    for place in (0..weight.max(0)).rev() {
        text.push_str(&format!("{:04}", digit(place)));
    }
    if scale > 0 {
        let mut fraction = String::new();
        let mut place = -1;
        while fraction.len() < scale {
            fraction.push_str(&format!("{:04}", digit(place)));
            place -= 1;
        }
        text.push('.');
        text.push_str(&fraction[..scale]);
    }
    Ok(Cell::Number(text))
}

fn uuid(bytes: &[u8]) -> Result<Cell, CellError> {
    let number = u128::from_be_bytes(bytes.try_into()?);
    let hex = format!("{number:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(Cell::Text(parts.join("-")))
}

/// Days since 2000-01-01.
fn day(days: i32) -> Result<Cell, CellError> {
    Ok(Cell::Text(match days {
        i32::MAX => "infinity".to_owned(),
        i32::MIN => "-infinity".to_owned(),
        _ => written(date(2000, 1, 1).checked_add(Span::new().try_days(days)?)?),
    }))
}

/// Microseconds since 2000-01-01; with a time zone, in UTC.
fn moment(micros: i64) -> Result<Cell, CellError> {
    let since_1970 = match micros {
        i64::MAX => return Ok(Cell::Text("infinity".to_owned())),
        i64::MIN => return Ok(Cell::Text("-infinity".to_owned())),
        _ => micros.checked_add(EPOCH_MICROS).ok_or("a time too far away")?,
    };
    let at = Timestamp::from_microsecond(since_1970)?.to_zoned(jiff::tz::TimeZone::UTC);
    let mut text = written(at.date());
    text.push(' ');
    text.push_str(&clock(since_1970.rem_euclid(24 * 3_600_000_000)));
    Ok(Cell::Text(text))
}

fn written(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day())
}

/// Microseconds since midnight.
fn clock(micros: i64) -> String {
    let seconds = micros.div_euclid(1_000_000);
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    push_fraction(&mut text, u32::try_from(micros.rem_euclid(1_000_000)).unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: &str, bytes: &[u8]) -> String {
        value(kind, bytes).expect("a value").json()
    }

    fn number(weight: i16, sign: u16, scale: i16, digits: &[i16]) -> String {
        let mut bytes = Vec::new();
        for short in [digits.len() as i16, weight, sign as i16, scale].iter().chain(digits) {
            bytes.extend_from_slice(&short.to_be_bytes());
        }
        text("NUMERIC", &bytes)
    }

    #[test]
    fn decimals_keep_all_their_digits() {
        assert_eq!(number(0, 0, 2, &[12, 5000]), "12.50");
        assert_eq!(number(-1, 0x4000, 2, &[500]), "-0.05");
        assert_eq!(number(-2, 0, 6, &[100]), "0.000001");
        assert_eq!(number(2, 0, 0, &[1]), "100000000");
        assert_eq!(number(1, 0, 3, &[12, 345, 6780]), "120345.678");
        assert_eq!(number(0, 0, 0, &[]), "0");
        assert_eq!(number(0, 0, 2, &[]), "0.00");
        assert_eq!(number(0, 0xc000, 0, &[]), "null");
    }

    #[test]
    fn times_have_one_form() {
        assert_eq!(text("DATE", &8825_i32.to_be_bytes()), "\"2024-02-29\"");
        assert_eq!(text("DATE", &i32::MAX.to_be_bytes()), "\"infinity\"");
        assert_eq!(text("TIMESTAMP", &0_i64.to_be_bytes()), "\"2000-01-01 00:00:00\"");
        assert_eq!(text("TIMESTAMPTZ", &(-1_500_000_i64).to_be_bytes()), "\"1999-12-31 23:59:58.5\"");
        assert_eq!(text("TIME", &3_723_000_001_i64.to_be_bytes()), "\"01:02:03.000001\"");
        assert!(value("TIMESTAMP", &(i64::MAX - 1).to_be_bytes()).is_err());
    }

    #[test]
    fn arrays_nest() {
        let ints = |numbers: &[i32]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_be_bytes()).collect() };
        let list = |bytes: &[u8]| array("INT4", bytes).expect("an array").json();
        assert_eq!(list(&ints(&[0, 0, 23])), "[]");
        assert_eq!(list(&ints(&[1, 1, 23, 3, 1, 4, 7, -1, 4, 8])), "[7,null,8]");
        assert_eq!(list(&ints(&[2, 0, 23, 2, 1, 1, 1, 4, 7, 4, 8])), "[[7],[8]]");
        for broken in [&ints(&[1, 0, 23, 2, 1, 4, 7])[..], &ints(&[9, 0, 23]), &ints(&[1, 0, 23, 1, 1, -7])] {
            assert!(array("INT4", broken).is_err());
        }
    }

    #[test]
    fn other_types() {
        assert_eq!(text("BOOL", &[1]), "true");
        assert_eq!(text("JSONB", b"\x01{\"a\": 1}"), "{\"a\": 1}");
        assert_eq!(text("UUID", &[0x1f; 16]), "\"1f1f1f1f-1f1f-1f1f-1f1f-1f1f1f1f1f1f\"");
        assert_eq!(text("FLOAT4", &0.1_f32.to_be_bytes()), "0.1");
        assert_eq!(text("FLOAT8", &f64::NAN.to_be_bytes()), "null");
        assert!(value("INTERVAL", &[0; 16]).is_err_and(|error| error.to_string().contains("::text")));
        assert!(value("INT4", &[0]).is_err() && value("JSONB", &[2]).is_err() && value("UUID", &[]).is_err());
    }
}
