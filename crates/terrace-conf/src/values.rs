//! Typed values of a directive's words, with the errors nginx gives for them.
//!
//! All helpers take the word's index behind the name and fail with the arity error when there is no such word, so a
//! table that forgot to require it cannot make them panic.

use bytes::Bytes;
use terrace_base::units;

use crate::{Arg, ConfError, Node};

impl Node {
    /// The word at `index`.
    ///
    /// # Errors
    /// `invalid number of arguments in "name" directive`
    pub fn arg(&self, index: usize) -> Result<&Arg, ConfError> {
        self.args.get(index).ok_or_else(|| self.invalid_arity())
    }

    /// The bytes of the word at `index`; cloning them is cheap.
    ///
    /// # Errors
    /// When there is no such word.
    pub fn bytes(&self, index: usize) -> Result<&Bytes, ConfError> {
        Ok(&self.arg(index)?.value)
    }

    /// The word at `index` as text.
    ///
    /// # Errors
    /// When there is no such word or it is not UTF-8.
    pub fn text(&self, index: usize) -> Result<&str, ConfError> {
        self.arg(index)?.text()
    }

    /// `on` or `off`.
    ///
    /// # Errors
    /// `invalid value "x" in "name" directive, it must be "on" or "off"`
    pub fn flag(&self, index: usize) -> Result<bool, ConfError> {
        let arg = self.arg(index)?;
        units::parse_flag(&arg.value).ok_or_else(|| {
            self.error(format!(
                "invalid value \"{arg}\" in \"{}\" directive, it must be \"on\" or \"off\"",
                self.name
            ))
        })
    }

    /// A size in bytes: `8k`, `1m`, `1g`, `4096`.
    ///
    /// # Errors
    /// `"name" directive invalid value`
    pub fn size(&self, index: usize) -> Result<u64, ConfError> {
        units::parse_size(self.bytes(index)?).ok_or_else(|| self.directive_error("invalid value"))
    }

    /// A time in milliseconds: `500ms`, `1h30m`, `10` (seconds).
    ///
    /// # Errors
    /// `"name" directive invalid value`
    pub fn time_ms(&self, index: usize) -> Result<u64, ConfError> {
        units::parse_time_ms(self.bytes(index)?).ok_or_else(|| self.directive_error("invalid value"))
    }

    /// A time in seconds, where milliseconds are not allowed.
    ///
    /// # Errors
    /// `"name" directive invalid value`
    pub fn time_secs(&self, index: usize) -> Result<u64, ConfError> {
        units::parse_time_secs(self.bytes(index)?).ok_or_else(|| self.directive_error("invalid value"))
    }

    /// A number without sign that fits `T`.
    ///
    /// # Errors
    /// `"name" directive invalid number`
    pub fn number<T: TryFrom<u64>>(&self, index: usize) -> Result<T, ConfError> {
        parse_number(self.bytes(index)?).ok_or_else(|| self.directive_error("invalid number"))
    }

    /// The value that `choices` gives to the word, whose case does not matter.
    ///
    /// # Errors
    /// `invalid value "x"`, with the choices as the hint.
    pub fn one_of<T: Clone>(&self, index: usize, choices: &[(&str, T)]) -> Result<T, ConfError> {
        let arg = self.arg(index)?;
        let found = choices.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(&arg.value));
        found.map(|(_, value)| value.clone()).ok_or_else(|| {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            self.error(format!("invalid value \"{arg}\""))
                .with_hint(format!("it must be {}", names.join(" or ")))
        })
    }

    /// The words from `first` on as parameters, `name=value` or `name`.
    pub fn params(&self, first: usize) -> impl Iterator<Item = Param<'_>> {
        self.args.iter().skip(first).map(|arg| match memchr::memchr(b'=', &arg.value) {
            Some(at) => Param { node: self, arg, name: &arg.value[..at], value: Some(&arg.value[at + 1..]) },
            None => Param { node: self, arg, name: &arg.value, value: None },
        })
    }

    /// Fills `slot` with `value`.
    ///
    /// # Errors
    /// `"name" directive is duplicate` when it is filled already.
    pub fn set_once<T>(&self, slot: &mut Option<T>, value: T) -> Result<(), ConfError> {
        if slot.is_some() {
            return Err(self.duplicate());
        }
        *slot = Some(value);
        Ok(())
    }

    /// `"name" directive is duplicate`
    #[must_use]
    pub fn duplicate(&self) -> ConfError {
        self.directive_error("is duplicate")
    }

    /// `invalid number of arguments in "name" directive`
    #[must_use]
    pub fn invalid_arity(&self) -> ConfError {
        self.error(format!("invalid number of arguments in \"{}\" directive", self.name))
    }

    /// `invalid parameter "arg"`
    #[must_use]
    pub fn invalid_parameter(&self, arg: &Arg) -> ConfError {
        self.error(format!("invalid parameter \"{arg}\""))
    }
}

/// A parameter of a directive, such as `weight=5` or `backup`. Its errors are `invalid parameter "weight=x"`.
#[derive(Debug, Clone, Copy)]
pub struct Param<'a> {
    node: &'a Node,
    /// The whole word.
    pub arg: &'a Arg,
    /// What stands before the first `=`.
    pub name: &'a [u8],
    /// What stands behind the first `=`; `None` without one.
    pub value: Option<&'a [u8]>,
}

impl<'a> Param<'a> {
    /// The value, sharing the configuration's memory.
    ///
    /// # Errors
    /// Without a value.
    pub fn bytes(&self) -> Result<Bytes, ConfError> {
        self.required().map(|value| self.arg.value.slice_ref(value))
    }

    /// The value as text.
    ///
    /// # Errors
    /// Without a value, or when it is not UTF-8.
    pub fn text(&self) -> Result<&'a str, ConfError> {
        std::str::from_utf8(self.required()?).map_err(|_| self.error())
    }

    /// The value as `on` or `off`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn flag(&self) -> Result<bool, ConfError> {
        units::parse_flag(self.required()?).ok_or_else(|| self.error())
    }

    /// The value as a size in bytes.
    ///
    /// # Errors
    /// When it is none.
    pub fn size(&self) -> Result<u64, ConfError> {
        units::parse_size(self.required()?).ok_or_else(|| self.error())
    }

    /// The value as a time in milliseconds.
    ///
    /// # Errors
    /// When it is none.
    pub fn time_ms(&self) -> Result<u64, ConfError> {
        units::parse_time_ms(self.required()?).ok_or_else(|| self.error())
    }

    /// The value as a time in whole seconds.
    ///
    /// # Errors
    /// When it is none.
    pub fn time_secs(&self) -> Result<u64, ConfError> {
        units::parse_time_secs(self.required()?).ok_or_else(|| self.error())
    }

    /// The value as a number without sign that fits `T`.
    ///
    /// # Errors
    /// When it is none.
    pub fn number<T: TryFrom<u64>>(&self) -> Result<T, ConfError> {
        parse_number(self.required()?).ok_or_else(|| self.error())
    }

    /// `invalid parameter "..."`, also the error for a name that the directive does not know.
    #[must_use]
    pub fn error(&self) -> ConfError {
        self.node.invalid_parameter(self.arg)
    }

    fn required(&self) -> Result<&'a [u8], ConfError> {
        self.value.ok_or_else(|| self.error())
    }
}

fn parse_number<T: TryFrom<u64>>(digits: &[u8]) -> Option<T> {
    T::try_from(units::parse_number(digits)?).ok()
}
