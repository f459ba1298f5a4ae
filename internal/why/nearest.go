package why

// Nearest returns the name of a list that is most likely meant by another, "" where
// none is like it.
func Nearest(name string, list []string) string {
	best, least := "", max(2, len(name)/3)+1
	for _, other := range list {
		if d := distance(name, other, least); d < least {
			best, least = other, d
		}
	}
	return best
}

// distance counts the letters that are to be added, removed, replaced or swapped with
// their neighbour to make one text of another; most where there are so many and more.
func distance(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], most)
}
