use super::*;

/// Bytes that look like noise, the same on every run.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(next).collect()
}

/// Noise and steps from black to white, at which the cubic overshoots most.
fn rough(width: usize, height: usize) -> Vec<u8> {
    let mut plane = noise(width * height);
    for (at, byte) in plane.iter_mut().enumerate().take(width * height / 2) {
        *byte = if (at % width / 3).is_multiple_of(2) { 0 } else { 255 };
    }
    plane
}

fn scaled(way: Way, (width, height): (u32, u32), to: (u32, u32), planes: &[Vec<u8>; 3]) -> [Vec<u8>; 3] {
    let mut convolution = Convolution::new((width, height), to).unwrap();
    convolution.way = way;
    let chroma = plane_size(1, width, height).0;
    let [y, u, v] = planes;
    let source = Source { width, height, planes: [(y, width as usize), (u, chroma), (v, chroma)] };
    // Rows of the target lie farther apart than they are long.
    let strides = [0, 1, 2].map(|plane| plane_size(plane, to.0, to.1).0 + 5);
    let mut made = [0, 1, 2].map(|plane| vec![99; strides[plane] * plane_size(plane, to.0, to.1).1]);
    let [y, u, v] = &mut made;
    let planes = [(&mut y[..], strides[0]), (&mut u[..], strides[1]), (&mut v[..], strides[2])];
    convolution.scale(&source, &mut Target { width: to.0, height: to.1, planes }).unwrap();
    made
}

const SIZES: [((u32, u32), (u32, u32)); 12] = [
    ((192, 108), (128, 72)),
    ((128, 72), (86, 48)),
    ((320, 180), (160, 90)),
    ((97, 55), (42, 24)),
    ((640, 36), (64, 4)),
    ((64, 48), (17, 9)),
    ((64, 48), (16, 9)),
    ((33, 17), (66, 90)),
    ((40, 40), (40, 40)),
    ((2, 2), (64, 64)),
    ((1, 1), (3, 1)),
    ((300, 200), (2, 2)),
];

#[test]
fn all_kinds_of_instructions_give_the_same_bits() {
    for (from, to) in SIZES {
        let planes = [0, 1, 2].map(|plane| {
            let (width, height) = plane_size(plane, from.0, from.1);
            rough(width, height)
        });
        let plain = scaled(Way::Plain, from, to, &planes);
        for way in Way::all() {
            assert!(scaled(way, from, to, &planes) == plain, "{way:?} differs, {from:?} to {to:?}");
        }
    }
}

#[test]
fn a_row_between_never_leaves_16_bits() {
    // The sum of a sample's positive weights is what white can become at most.
    for (from, to) in SIZES.iter().flat_map(|(from, to)| [(from.0, to.0), (from.1, to.1)]) {
        let axis = Axis::new(from as usize, to as usize);
        for at in 0..to as usize {
            let most: i32 =
                axis.weights(at).iter().filter(|weight| **weight > 0).map(|weight| i32::from(*weight)).sum();
            assert!(most * 255 < (i32::from(i16::MAX) - 64) << 8, "{from} to {to}");
        }
    }
}

#[test]
fn every_shade_stays_what_it_is_up_to_the_rows_padding() {
    for (from, to) in SIZES {
        // Each product is rounded by half a 64th of a step at most, which shows only where hundreds are added.
        let off = (Axis::new(from.1 as usize, to.1 as usize).taps / 64) as u8;
        for shade in [0, 1, 16, 77, 128, 235, 254, 255] {
            let planes = [0, 1, 2].map(|plane| {
                let (width, height) = plane_size(plane, from.0, from.1);
                vec![shade; width * height]
            });
            for (plane, made) in scaled(Way::all()[0], from, to, &planes).iter().enumerate() {
                let columns = plane_size(plane, to.0, to.1).0;
                for row in made.chunks(columns + 5) {
                    assert!(
                        row[..columns].iter().all(|byte| byte.abs_diff(shade) <= off),
                        "{from:?} {to:?} {shade}"
                    );
                    assert!(row[columns..].iter().all(|byte| *byte == 99), "{from:?} {to:?} past the row");
                }
            }
        }
    }
}

#[test]
fn the_same_size_gives_the_same_picture() {
    let planes = [rough(40, 30), rough(20, 15), rough(20, 15)];
    let made = scaled(Way::all()[0], (40, 30), (40, 30), &planes);
    for (made, plane, width) in [(&made[0], &planes[0], 40), (&made[1], &planes[1], 20)] {
        let rows = made.chunks(width + 5).zip(plane.chunks(width));
        assert!(rows.into_iter().all(|(made, row)| made[..width] == *row));
    }
}

#[test]
fn a_picture_of_another_size_or_with_too_few_bytes_is_refused() {
    let mut convolution = Convolution::new((64, 64), (32, 32)).unwrap();
    let (from, mut to) = (vec![0; 64 * 64], [vec![0; 32 * 32], vec![0; 256], vec![0; 256]]);
    let source = Source { width: 64, height: 62, planes: [(&from, 64), (&from, 32), (&from, 32)] };
    let [y, u, v] = &mut to;
    let mut target = Target { width: 32, height: 32, planes: [(y, 32), (u, 16), (v, 16)] };
    assert!(matches!(convolution.scale(&source, &mut target), Err(ScaleError::Other { height: 62, .. })));
    let short = Source { width: 64, height: 64, planes: [(&from, 64), (&from[..1000], 32), (&from, 32)] };
    assert!(matches!(convolution.scale(&short, &mut target), Err(ScaleError::Plane { plane: 1, .. })));
    let narrow = Source { width: 64, height: 64, planes: [(&from, 63), (&from, 32), (&from, 32)] };
    assert!(matches!(convolution.scale(&narrow, &mut target), Err(ScaleError::Plane { stride: 63, .. })));
    assert!(matches!(Convolution::new((64, 0), (32, 32)), Err(ScaleError::Size { .. })));
}
