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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_fall_where_the_calendar_has_them() {
        // By the word of `date -u -d @N`.
        for (seconds, (year, month, day)) in [
            (0, (1970, 1, 1)),
            (951_782_400, (2000, 2, 29)),
            (4_107_542_400, (2100, 3, 1)),
            (-2_208_988_800, (1900, 1, 1)),
        ] {
            let moment = Moment { year, month, day, hour: 0, minute: 0, second: 0 };
            assert_eq!(Moment::from_unix(seconds), moment);
        }
        for day in -100_000i64..200_000 {
            let seconds = day * 86_400 + day.rem_euclid(86_400);
            assert_eq!(Moment::from_unix(seconds).to_unix(), seconds);
        }
    }
}
