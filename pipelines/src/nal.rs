//! H.264 and HEVC at the level of NAL units.
