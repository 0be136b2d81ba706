//! Seconds since 1970 and the Gregorian calendar, in UTC.

/// A second of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// As people count them: 2024.
    pub year: i64,
    /// From 1.
    pub month: u8,
    /// From 1.
    pub day: u8,
    /// Of the day, from 0.
    pub hour: u8,
    /// Of the hour.
    pub minute: u8,
    /// Of the minute.
    pub second: u8,
}

impl Moment {
    /// So many seconds after the beginning of 1970.
    pub fn from_unix(seconds: i64) -> Moment {
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Years are counted from March on, so that the odd day comes last, in cycles of 400 years.
        let days = days + 719_468;
        let (cycle, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day_of_month = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Moment {
            year: year + cycle * 400 + i64::from(month <= 2),
            month: month as u8,
            day: day_of_month as u8,
            hour: (second / 3600) as u8,
            minute: (second / 60 % 60) as u8,
            second: (second % 60) as u8,
        }
    }

    /// The seconds since the beginning of 1970. A day that the calendar does not have counts on: February 30 is in March.
    pub fn to_unix(self) -> i64 {
        let month = i64::from(self.month.clamp(1, 12));
        let year = self.year - i64::from(month <= 2);
        let (cycle, year) = (year.div_euclid(400), year.rem_euclid(400));
        let month = (month + 9) % 12;
        let day = (153 * month + 2) / 5 + i64::from(self.day) - 1 + year * 365 + year / 4 - year / 100;
        let days = cycle * 146_097 + day - 719_468;
        let time = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        days * 86_400 + time
    }

    /// The first second of a year.
    pub const fn beginning_of(year: i64) -> Moment {
        Moment { year, month: 1, day: 1, hour: 0, minute: 0, second: 0 }
    }

    /// The last second of a year.
    pub const fn end_of(year: i64) -> Moment {
        Moment { year, month: 12, day: 31, hour: 23, minute: 59, second: 59 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_fall_where_the_calendar_has_them() {
        let at = |seconds| {
            let Moment { year, month, day, hour, minute, second } = Moment::from_unix(seconds);
            format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
        };
        // By the word of `date -u -d @N`.
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00"),
            (-1, "1969-12-31 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (-2_208_988_800, "1900-01-01 00:00:00"),
            (253_402_300_799, "9999-12-31 23:59:59"),
        ] {
            assert_eq!(at(seconds), expected);
        }
    }

    #[test]
    fn seconds_become_moments_and_seconds_again() {
        for day in -100_000i64..200_000 {
            let seconds = day * 86_400 + day.rem_euclid(86_400);
            assert_eq!(Moment::from_unix(seconds).to_unix(), seconds);
        }
    }

    #[test]
    fn each_day_comes_after_the_day_before() {
        let mut before = Moment::from_unix(-100_000 * 86_400);
        for day in -99_999..200_000 {
            let now = Moment::from_unix(day * 86_400);
            assert!(before < now, "{before:?} {now:?}");
            before = now;
        }
    }
}
