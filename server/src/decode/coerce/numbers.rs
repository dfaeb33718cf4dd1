//! Truth values, integers and floats.

use super::{Casts, Column, Misfit, python, wrapped};

/// Everything that is not nothing is true: numbers but 0, texts but the empty one; `"false"`, too.
pub(super) struct Booleans {
    inner: Box<dyn Column>,
    casts: Casts,
}

impl Booleans {
    pub(super) fn new(inner: Box<dyn Column>, casts: Casts) -> Self {
        Self { inner, casts }
    }
}

impl Column for Booleans {
    wrapped!();

    fn take_null(&mut self) -> bool {
        self.casts != Casts::Fields && self.inner.boolean(false).is_ok()
    }

    fn boolean(&mut self, value: bool) -> Result<(), Misfit> {
        self.inner.boolean(value)
    }

    fn integer(&mut self, value: i128) -> Result<(), Misfit> {
        self.inner.boolean(value != 0)
    }

    fn float(&mut self, value: f64) -> Result<(), Misfit> {
        self.inner.boolean(value != 0.0)
    }

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        match (self.casts, value) {
            (Casts::Fields, "1" | "0") => self.inner.boolean(value == "1"),
            (Casts::Fields, _) => Err(Misfit::Type),
            (Casts::Frame | Casts::Array, _) => self.inner.boolean(!value.is_empty()),
        }
    }
}

/// Whether JSON may have had an integer there of more bits than are read, which is another thing to
/// Python than a float.
pub(super) fn may_be_integer(value: f64) -> bool {
    !(-9_223_372_036_854_775_808.0 < value && value < 18_446_744_073_709_551_616.0)
}

/// `MLflow`'s `integer` and `long`. What they make of a value is taken where the column holds it.
pub(super) struct Integers {
    inner: Box<dyn Column>,
    casts: Casts,
    least: i64,
    most: i64,
}

impl Integers {
    pub(super) fn of_32_bits(inner: Box<dyn Column>, casts: Casts) -> Self {
        Self {
            inner,
            casts,
            least: i32::MIN.into(),
            most: i32::MAX.into(),
        }
    }

    pub(super) fn of_64_bits(inner: Box<dyn Column>, casts: Casts) -> Self {
        Self {
            inner,
            casts,
            least: i64::MIN,
            most: i64::MAX,
        }
    }

    fn holds(&self, value: i128) -> bool {
        (i128::from(self.least)..=i128::from(self.most)).contains(&value)
    }

    /// The lowest bits of `value`, the highest of them as its sign.
    fn wrapped(&self, value: i128) -> i128 {
        let values = i128::from(self.most) - i128::from(self.least) + 1;
        (value - i128::from(self.least)).rem_euclid(values) + i128::from(self.least)
    }
}

impl Column for Integers {
    wrapped!();

    fn boolean(&mut self, value: bool) -> Result<(), Misfit> {
        self.inner.integer(value.into())
    }

    fn integer(&mut self, value: i128) -> Result<(), Misfit> {
        match self.casts {
            _ if self.holds(value) => self.inner.integer(value),
            Casts::Frame => self.inner.integer(self.wrapped(value)),
            Casts::Array | Casts::Fields => Err(Misfit::Range),
        }
    }

    /// What is after the point is cut off; what is too large becomes the least of all, as x86
    /// processors do it.
    #[expect(clippy::cast_possible_truncation, reason = "that is the cast")]
    fn float(&mut self, value: f64) -> Result<(), Misfit> {
        if may_be_integer(value) {
            return Err(Misfit::Range);
        }
        let whole = value as i128;
        match self.casts {
            _ if self.holds(whole) => self.inner.integer(whole),
            Casts::Frame => self.inner.integer(self.least.into()),
            Casts::Array | Casts::Fields => Err(Misfit::Range),
        }
    }

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        let value = python::integer(value).ok_or(Misfit::Form("it is no integer to Python"))?;
        if !self.holds(value) {
            return Err(Misfit::Range);
        }
        self.inner.integer(value)
    }
}

/// `MLflow`'s `float` and `double`. They round, and what is too large for them is infinite.
pub(super) struct Floats {
    inner: Box<dyn Column>,
    casts: Casts,
    single: bool,
}

impl Floats {
    pub(super) fn of_32_bits(inner: Box<dyn Column>, casts: Casts) -> Self {
        Self {
            inner,
            casts,
            single: true,
        }
    }

    pub(super) fn of_64_bits(inner: Box<dyn Column>, casts: Casts) -> Self {
        Self {
            inner,
            casts,
            single: false,
        }
    }
}

impl Column for Floats {
    wrapped!();

    fn boolean(&mut self, value: bool) -> Result<(), Misfit> {
        self.inner.float(f64::from(u8::from(value)))
    }

    #[expect(clippy::cast_precision_loss, reason = "that is the cast")]
    fn integer(&mut self, value: i128) -> Result<(), Misfit> {
        if self.single && self.casts == Casts::Frame {
            // Rounded once: by way of 64 bits it would be twice.
            return self.inner.float((value as f32).into());
        }
        self.float(value as f64)
    }

    #[expect(clippy::cast_possible_truncation, reason = "that is the cast")]
    fn float(&mut self, value: f64) -> Result<(), Misfit> {
        let value = if self.single {
            f64::from(value as f32)
        } else {
            value
        };
        self.inner.float(value)
    }

    fn text(&mut self, value: &str) -> Result<(), Misfit> {
        let value = python::float(value).ok_or(Misfit::Form("it is no float to Python"))?;
        self.float(value)
    }
}
