//! What the kernel knows of its own clock: `adjtimex(2)`. A time daemon keeps `maxerror` true, and the kernel adds
//! 500 ppm to it for as long as nobody does; `offset` is what it still corrects.

#[cfg(target_os = "linux")]
pub(crate) fn error_micros() -> Result<i64, String> {
    let mut timex = rtime_clock::adjtime::Timex::new();
    rtime_clock::adjtime::adjtimex(&mut timex)
        .map_err(|error| format!("the kernel does not say how its clock stands: {error}"))?;
    error_of(timex.0.status, timex.0.offset, timex.0.maxerror)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn error_micros() -> Result<i64, String> {
    Err("only Linux says how its clock stands".into())
}

/// In `status` of `struct timex`: nobody disciplines the clock.
const STA_UNSYNC: i32 = 0x0040;
/// In `status` of `struct timex`: `offset` counts nanoseconds.
const STA_NANO: i32 = 0x2000;

fn error_of(status: i32, offset: i64, error_micros: i64) -> Result<i64, String> {
    if status & STA_UNSYNC != 0 {
        return Err(
            "the kernel's clock is not synchronised: is a time daemon running (chronyd, ntpd, \
             systemd-timesyncd)?"
                .into(),
        );
    }
    let unit = if status & STA_NANO != 0 { 1_000 } else { 1 };
    let offset_micros = offset.saturating_abs() / unit + 1;
    Ok(error_micros.saturating_add(offset_micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_what_the_daemon_admits_and_what_is_still_corrected() {
        assert_eq!(error_of(STA_NANO, -250_000, 1_000), Ok(1_251));
        assert_eq!(error_of(0, 250, 1_000), Ok(1_251));
    }

    #[test]
    fn an_unsynchronised_kernel_is_refused() {
        assert!(error_of(STA_UNSYNC | STA_NANO, 0, 10).is_err());
    }

    #[test]
    fn the_kernel_answers_in_one_way_or_the_other() {
        match error_micros() {
            Ok(error) => assert!(error > 0),
            Err(why) => assert!(!why.is_empty()),
        }
    }
}
