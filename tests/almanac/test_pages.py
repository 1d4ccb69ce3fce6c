from thalweg.almanac.pages import PAGE, first_page, is_short, next_page
from thalweg.almanac.paper import Document, Paper

QUERY = "https://export.arxiv.org/api/query?search_query=cat%3Acs.LG&start=10&max_results="


def test_a_long_query_is_cut():
    assert first_page(QUERY + "20") == (QUERY + "20", 20)
    url, wanted = first_page(QUERY + "1200")
    assert url == QUERY + str(PAGE) and wanted == 1200
    full = Document("atom", total=99_999)
    url, left = next_page(url, full, wanted)
    assert url == QUERY.replace("start=10", "start=510") + "500" and left == 700
    url, left = next_page(url, full, left)
    assert url == QUERY.replace("start=10", "start=1010") + "200" and left == 200
    assert next_page(url, full, left) == ("", 0)


def test_the_end_of_the_results_and_feeds_without_pages():
    assert next_page(QUERY + "500", Document("atom", total=400), 1200) == ("", 0)
    assert next_page("https://rss.arxiv.org/rss/cs.LG", Document("rss"), 0) == ("", 0)
    assert first_page("https://rss.arxiv.org/rss/cs.LG") == ("https://rss.arxiv.org/rss/cs.LG", 0)


def test_an_empty_page_before_the_end_is_a_mistake():
    assert is_short(QUERY + "5", Document("atom", total=100))
    assert not is_short(QUERY + "5", Document("atom", total=5))
    assert not is_short(QUERY + "5", Document("atom", (Paper("arxiv:1", "T"),), total=100))
