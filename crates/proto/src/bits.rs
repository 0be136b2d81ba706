//! Flag sets: a newtype over an integer that keeps unknown bits and prints the names of the known ones.

/// Declares a set of flags. Unknown bits survive decoding, because the specification tells most readers to ignore them
/// and some (a server reading client flags) to notice them.
macro_rules! bits {
    ($(#[$doc:meta])* pub struct $name:ident: $int:ty { $($(#[$flag_doc:meta])* $flag:ident = $bit:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub $int);

        impl $name {
            $($(#[$flag_doc])* pub const $flag: $name = $name(1 << $bit);)*

            /// No flag.
            pub const NONE: $name = $name(0);

            /// Every flag known here.
            pub const ALL: $name = $name(0 $(| 1 << $bit)*);

            /// Whether all of `other` are set.
            #[inline]
            pub const fn has(self, other: $name) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any of `other` is set.
            #[inline]
            pub const fn has_any(self, other: $name) -> bool {
                self.0 & other.0 != 0
            }

            /// These flags without `other`.
            #[inline]
            #[must_use]
            pub const fn without(self, other: $name) -> $name {
                $name(self.0 & !other.0)
            }

            /// These flags, and `other` if `condition` holds.
            #[inline]
            #[must_use]
            pub const fn with_if(self, condition: bool, other: $name) -> $name {
                if condition { $name(self.0 | other.0) } else { self }
            }

            /// The bits that have no name here.
            #[inline]
            pub const fn unknown(self) -> $name {
                $name(self.0 & !Self::ALL.0)
            }
        }

        impl std::ops::BitOr for $name {
            type Output = $name;
            #[inline]
            fn bitor(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }
        }

        impl std::ops::BitOrAssign for $name {
            #[inline]
            fn bitor_assign(&mut self, other: $name) {
                self.0 |= other.0;
            }
        }

        impl std::ops::BitAnd for $name {
            type Output = $name;
            #[inline]
            fn bitand(self, other: $name) -> $name {
                $name(self.0 & other.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut first = true;
                let mut put = |f: &mut std::fmt::Formatter<'_>, text: &dyn std::fmt::Display| {
                    let bar = if first { "" } else { "|" };
                    first = false;
                    write!(f, "{bar}{text}")
                };
                $(if self.has(Self::$flag) { put(f, &stringify!($flag))?; })*
                if self.unknown().0 != 0 { put(f, &format_args!("{:#x}", self.unknown().0))?; }
                if self.0 == 0 { put(f, &"none")?; }
                Ok(())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

pub(crate) use bits;

#[cfg(test)]
mod tests {
    use crate::flags::TransmissionFlags as T;

    #[test]
    fn flags_print_their_names_and_keep_unknown_bits() {
        assert_eq!(T::NONE.to_string(), "none");
        assert_eq!((T::HAS_FLAGS | T::READ_ONLY | T(1 << 15)).to_string(), "HAS_FLAGS|READ_ONLY|0x8000");
        assert_eq!(T(1 << 15).unknown(), T(1 << 15));
    }

    #[test]
    fn has_asks_for_all_and_has_any_for_one() {
        let both = T::SEND_TRIM | T::SEND_FUA;
        assert!(both.has(T::SEND_TRIM) && !T::SEND_TRIM.has(both) && T::SEND_TRIM.has_any(both));
        assert_eq!(both.without(T::SEND_TRIM), T::SEND_FUA);
        assert_eq!(T::NONE.with_if(true, both), both);
        assert_eq!(T::NONE.with_if(false, both), T::NONE);
    }
}
