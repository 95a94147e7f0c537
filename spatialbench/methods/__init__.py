"""One file for each paper. Methods never import one another; parts/ holds what several share."""
