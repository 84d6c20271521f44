//! Numbers as text, for the places where a line is written for every request or message and `format!` would show.

/// Appends a number in decimal digits.
pub fn push(to: &mut Vec<u8>, mut number: u64) {
    let (mut digits, mut at) = ([0; 20], 20); // u64::MAX has 20 digits
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    to.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_written_to_their_last_digit() {
        for number in [0, 7, 10, 4_096, u64::MAX] {
            let mut text = b"x".to_vec();
            super::push(&mut text, number);
            assert_eq!(text, format!("x{number}").into_bytes());
        }
    }
}
