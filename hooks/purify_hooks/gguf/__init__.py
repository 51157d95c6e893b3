"""Models in llama.cpp's format, run quantised by llama.cpp in this process."""
