"""What files of sounds, videos and pictures end with."""

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff", ".au", ".caf", ".w64"),
    *(".wma", ".wv", ".amr", ".ac3", ".eac3", ".mka", ".weba"),
)
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".flv", ".wmv", ".asf", ".mpg", ".mpeg", ".ts", ".m2ts"),
    *(".3gp", ".3g2"),
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
